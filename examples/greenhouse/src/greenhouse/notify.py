"""Tells the supervisor (pytheas agent, systemd) how the process is: the sd_notify protocol.

One datagram with `NAME=VALUE` lines to the Unix socket named by `NOTIFY_SOCKET`, see
sd_notify(3). Without that variable every call does nothing.
"""

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)


class Notifier:
    """The way to the supervisor, if there is one."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # "@" stands for the zero byte of an abstract socket.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = _watchdog_s(environ)

    def send(self, *lines: str) -> None:
        """Sends `lines`, e.g. `READY=1`. A deaf supervisor is logged, never fatal."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(1)  # a full queue must not stop the readings
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.warning("cannot notify the supervisor: %s", error, extra={"lines": lines})


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """Seconds between two signs of life (half of what the supervisor waits); None: not wanted."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    usec = environ.get("WATCHDOG_USEC", "")
    return int(usec) / 2_000_000 if usec.isdecimal() and int(usec) > 0 else None
