"""The gateway as a real process, with a real supervisor socket and real HTTP."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest



def _patience() -> float:
    """How much longer than on a usual machine things may take: 1, or more on a slow or emulated CPU.

    Starting what a gateway imports takes about half a second; a machine that needs ten gets ten
    times the time, so that the limits below speak of the gateway and not of the machine.
    """
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", "import greenhouse.app"], check=True)
    return max(1.0, time.monotonic() - begun)


PATIENCE = _patience()
WAIT_S = 20.0 * PATIENCE


class Gateway:
    """A running `greenhouse` and the supervisor's end of its socket."""

    def __init__(self, home: Path, **environ: str) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.data = home / "data"
        self.log = home / "log"
        address = home / "notify"
        address.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(address))
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "greenhouse"],
                stderr=log,
                cwd=home,
                env=environment(self.data) | {"NOTIFY_SOCKET": str(address)} | environ,
            )
        self.messages: list[str] = []

    def wait_for(self, message: str) -> str:
        """The first datagram that has `message` as a line; fails when the process ends first."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            if select.select([self._socket], [], [], 0.05)[0]:
                self.messages.append(self._socket.recv(4096).decode())
                if message in self.messages[-1].splitlines():
                    return self.messages[-1]
            elif self.process.poll() is not None:
                break
        raise AssertionError(f"no {message} in {self.messages}; log:\n{self.log.read_text()}")

    def ready(self) -> "Gateway":
        self.url = self.wait_for("READY=1").rsplit(" ", 1)[1]
        return self

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5 * PATIENCE) as response:  # noqa: S310
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def json(self, path: str) -> Any:
        return json.loads(self.get(path)[1])

    def end(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Sends the signal; the exit code and the seconds it took."""
        start = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(WAIT_S), time.monotonic() - start

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._socket.close()


def environment(data: Path) -> dict[str, str]:
    """Our own environment without greenhouse's variables, with the data in `data`."""
    theirs = ("GREENHOUSE_", "NOTIFY_", "WATCHDOG_")
    return {k: v for k, v in os.environ.items() if not k.startswith(theirs)} | {
        "PYTHEAS_DATA_DIR": str(data),
        "GREENHOUSE_HTTP_PORT": "0",
        "GREENHOUSE_INTERVAL": "100ms",
    }


def greenhouse(data: Path, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "greenhouse", *args],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        env=environment(data) | environ,
    )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Starts gateways that share one data directory and are gone after the test."""
    started: list[Gateway] = []

    def start(**environ: str) -> Gateway:
        started.append(Gateway(tmp_path / "home", **environ))
        return started[-1]

    yield start
    for gateway in started:
        gateway.close()
