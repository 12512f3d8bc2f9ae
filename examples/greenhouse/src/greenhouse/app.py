"""The running gateway: starts the parts in order, says when it is ready, stops cleanly.

Order: storage, self-test, HTTP, first round of readings, only then READY=1. Whatever fails before
that ends the process with an error, so a supervisor never takes a broken release for a good one.
"""

import asyncio
import logging
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

from greenhouse import __version__, selftest, web
from greenhouse.notify import Notifier
from greenhouse.sensors import Sensor, fit
from greenhouse.settings import Settings
from greenhouse.simulation import SimulatedProbe
from greenhouse.station import Station
from greenhouse.storage import Storage, StorageError

log = logging.getLogger(__name__)

PRUNE_EVERY_S = 3600.0


class StartError(Exception):
    """The gateway cannot start; the text says why."""


def sensors(settings: Settings) -> list[Sensor]:
    """The sensors of this greenhouse. Real probes go here."""
    seed, fault_rate = settings.sensors.seed, settings.sensors.fault_rate
    return fit(lambda name: SimulatedProbe(name, seed, fault_rate))


async def read_once(settings: Settings, directory: Path) -> dict[str, float]:
    """Self-test and one stored round of readings, for `--once`."""
    storage = await Storage.open(directory)
    try:
        now = datetime.now(UTC)
        fitted = sensors(settings)
        await selftest.run(fitted, storage, now, __version__)
        return await Station(fitted, storage, settings, now).read_round(now)
    finally:
        await storage.close()


async def serve(settings: Settings, directory: Path, notifier: Notifier) -> None:
    """Runs until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    notifier.send("STATUS=opening the database")
    storage = await Storage.open(directory)
    try:
        notifier.send("STATUS=testing storage and sensors")
        started = datetime.now(UTC)
        fitted = sensors(settings)
        starts = await selftest.run(fitted, storage, started, __version__)
        log.info("self-test passed, start %d on this data", starts, extra={"starts": starts})
        station = Station(fitted, storage, settings, started)
        try:
            sock, url = web.listen(settings.http.host, settings.http.port)
        except OSError as error:
            where = f"{settings.http.host}:{settings.http.port}"
            reason = error.strerror or error
            raise StartError(f"cannot listen on {where} (`http.port`): {reason}") from error
        async with web.serving(station, sock):
            await station.read_round(datetime.now(UTC))
            log.info("greenhouse %s serves %s", __version__, url, extra={"url": url})
            notifier.send("READY=1", f"STATUS=greenhouse {__version__} serves {url}")
            await _work_until(stop, station, settings, notifier)
            notifier.send("STOPPING=1", "STATUS=stopping")
    finally:
        await storage.close()
    log.info("stopped")


async def _work_until(
    stop: asyncio.Event, station: Station, settings: Settings, notifier: Notifier
) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_read_rounds(station, settings.interval)),
            group.create_task(_prune(station.storage, timedelta(seconds=settings.retention))),
        ]
        if notifier.watchdog_s:
            tasks.append(group.create_task(_feed_watchdog(station, notifier, notifier.watchdog_s)))
        await stop.wait()
        log.info("asked to stop")
        for task in tasks:
            task.cancel()


async def _read_rounds(station: Station, interval_s: float) -> None:
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        due = max(due + interval_s, loop.time())  # no burst of rounds after a standstill
        await asyncio.sleep(due - loop.time())
        try:
            await station.read_round(datetime.now(UTC))
        except StorageError as error:
            # A full disk may get room again; until then `/healthz` and the watchdog tell.
            log.error("this round of readings is lost: %s", error)


async def _prune(storage: Storage, retention: timedelta) -> None:
    while True:
        try:
            deleted = await storage.prune(datetime.now(UTC) - retention)
            if deleted:
                log.info("deleted %d old readings", deleted, extra={"deleted": deleted})
        except StorageError as error:
            log.error("old readings are not deleted: %s", error)
        await asyncio.sleep(PRUNE_EVERY_S)


async def _feed_watchdog(station: Station, notifier: Notifier, every_s: float) -> None:
    while True:
        if station.is_healthy(datetime.now(UTC)):
            notifier.send("WATCHDOG=1")
        await asyncio.sleep(every_s)
