"""The self-test at start: if it fails the process ends and never reports that it is ready.

That is what lets the supervisor go back to the release before, so it checks what a bad release
would break: that storage takes data and that every sensor gives a value that can be true.
"""

from collections.abc import Sequence
from datetime import datetime

from greenhouse.sensors import Sensor, SensorFault
from greenhouse.storage import Storage, StorageError

TRIES = 5  # a sensor may fail now and then; a fault at every try is a defect


class SelfTestError(Exception):
    """The self-test failed; the text names every failed check."""


async def run(sensors: Sequence[Sensor], storage: Storage, at: datetime, version: str) -> int:
    """Checks storage and sensors; returns how often the program has started on this storage."""
    failures: list[str] = []
    starts = 0
    try:
        starts = await storage.add_start(at, version)
    except StorageError as error:
        failures.append(str(error))
    for sensor in sensors:
        if failure := await _check(sensor, at):
            failures.append(failure)
    if failures:
        raise SelfTestError("; ".join(failures))
    return starts


async def _check(sensor: Sensor, at: datetime) -> str | None:
    fault: SensorFault | None = None
    for _ in range(TRIES):
        try:
            value = await sensor.read(at)
        except SensorFault as error:
            fault = error
            continue
        if sensor.is_plausible(value):
            return None
        q = sensor.quantity
        return (
            f"sensor `{sensor.name}` reads {value:g} {q.unit}, plausible is {q.low:g} to {q.high:g}"
        )
    return f"sensor `{sensor.name}` gave no reading in {TRIES} tries: {fault}"
