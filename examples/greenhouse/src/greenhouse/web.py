"""The status over HTTP, read only: `/healthz`, `/status`, `/readings`, `/metrics`."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Generator
from datetime import UTC, datetime
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from greenhouse import __version__, metrics
from greenhouse.station import Channel, Station
from greenhouse.storage import StorageError

MAX_LIMIT = 1000
GRACE_S = 1  # for requests that run when the process is asked to stop


def application(station: Station) -> Starlette:
    """The routes, looking at `station`."""

    async def healthz(_: Request) -> Response:
        healthy = station.is_healthy(datetime.now(UTC))
        text = "ok\n" if healthy else "no reading was stored lately\n"
        return PlainTextResponse(text, 200 if healthy else 503)

    async def status(_: Request) -> Response:
        now = datetime.now(UTC)
        return JSONResponse(
            {
                "name": "greenhouse",
                "version": __version__,
                "healthy": station.is_healthy(now),
                "uptime_s": round((now - station.started).total_seconds(), 1),
                "sensors": {name: _channel(c) for name, c in station.channels.items()},
                "derived": {
                    name: {"value": d.value, "unit": d.unit}
                    for name, d in station.derived().items()
                },
                "alarms": await station.storage.alarms(10),
            }
        )

    async def readings(request: Request) -> Response:
        sensor = request.query_params.get("sensor")
        if sensor is not None and sensor not in station.channels:
            return _refused(f"`sensor` must be one of {', '.join(station.channels)}")
        limit = request.query_params.get("limit", "100")
        if not (limit.isascii() and limit.isdecimal() and 1 <= int(limit[:9]) <= MAX_LIMIT):
            return _refused(f"`limit` must be a whole number from 1 to {MAX_LIMIT}")
        return JSONResponse({"readings": await station.storage.readings(sensor, int(limit))})

    async def metrics_page(_: Request) -> Response:
        page = metrics.render(station, datetime.now(UTC))
        return Response(page, media_type=metrics.CONTENT_TYPE)

    async def storage_failed(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, 503)

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/status", status),
            Route("/readings", readings),
            Route("/metrics", metrics_page),
        ],
        exception_handlers={StorageError: storage_failed},
    )


def listen(host: str, port: int) -> tuple[socket.socket, str]:
    """A bound socket and its URL; raises `OSError`. Port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.create_server((host, port), family=family)
    bound_host, bound_port = sock.getsockname()[:2]
    return sock, f"http://{f'[{bound_host}]' if ':' in host else bound_host}:{bound_port}"


class Server(uvicorn.Server):
    """uvicorn as a part of a program that handles signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@contextlib.asynccontextmanager
async def serving(station: Station, sock: socket.socket) -> AsyncIterator[None]:
    """Serves on `sock` inside the `async with`; it accepts requests from the first line on."""
    config = uvicorn.Config(
        application(station),
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = Server(config)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        while not server.started:
            if task.done():
                task.result()
            await asyncio.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        await task


def _channel(channel: Channel) -> dict[str, Any]:
    return {
        "value": channel.value,
        "unit": channel.sensor.quantity.unit,
        "at": channel.at.isoformat(timespec="milliseconds") if channel.at else None,
        "alarm": channel.alarm.level.value,
        "faults": channel.faults,
        "fault": channel.fault,
    }


def _refused(reason: str) -> Response:
    return JSONResponse({"error": reason}, 400)
