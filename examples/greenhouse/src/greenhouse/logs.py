"""Logging to stderr, as text for people or as JSON lines for machines. Times are UTC.

The identifier of a thing is in the message and, by `extra`, a field of its own in JSON. Never
logged: the environment, the content of the configuration file, request headers.
"""

import json
import logging
import sys
import time

_STANDARD = set(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    "color_message",
}


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """`2025-06-01T12:00:00Z INFO greenhouse.app: message`."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%SZ"
        )


def set_up(level: str, style: str) -> None:
    """Sends everything at `level` or above to stderr; `style` is `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Their words about every query, start and stop belong to debugging only.
    chatty = logging.DEBUG if level == "debug" else logging.WARNING
    for name in ("uvicorn", "aiosqlite", "asyncio"):
        logging.getLogger(name).setLevel(chatty)
    logging.captureWarnings(True)
