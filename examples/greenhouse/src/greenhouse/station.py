"""The station: one round of readings after the other, what is known now, and the alarms.

Knows neither clock nor HTTP: the time is an argument, and `web` only looks at it.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from greenhouse.alarms import Alarm, Change, Level
from greenhouse.climate import Derived, derived
from greenhouse.sensors import Sensor, SensorFault
from greenhouse.settings import Settings
from greenhouse.storage import Storage

log = logging.getLogger(__name__)


@dataclass
class Channel:
    """What is known of one sensor."""

    sensor: Sensor
    alarm: Alarm
    value: float | None = None
    at: datetime | None = None
    readings: int = 0
    faults: int = 0
    fault: str | None = None  # why the last try failed


class Station:
    """All channels, and the storage that the readings go to."""

    def __init__(
        self, sensors: Sequence[Sensor], storage: Storage, settings: Settings, started: datetime
    ) -> None:
        self.storage = storage
        self.started = started
        self.last_round: datetime | None = None  # the last one that was stored
        self._stale_after = timedelta(seconds=max(3 * settings.interval, 15))
        self.channels = {s.name: Channel(s, _alarm(s.name, settings)) for s in sensors}

    async def read_round(self, at: datetime) -> dict[str, float]:
        """Reads all sensors, keeps the values; a faulty sensor is left out of this round."""
        channels = list(self.channels.values())
        results = await asyncio.gather(*(_read(channel, at) for channel in channels))
        values = {
            channel.sensor.name: value
            for channel, value in zip(channels, results, strict=True)
            if value is not None
        }
        await self.storage.add_readings(at, values)
        self.last_round = at
        for name, value in values.items():
            if change := self.channels[name].alarm.update(value):
                _log_change(change)
                await self.storage.add_alarm(at, change)
        return values

    def derived(self) -> dict[str, Derived]:
        """What follows from the latest values."""
        return derived({n: c.value for n, c in self.channels.items() if c.value is not None})

    def is_healthy(self, at: datetime) -> bool:
        """Whether a round was stored not long ago."""
        return self.last_round is not None and at - self.last_round <= self._stale_after


async def _read(channel: Channel, at: datetime) -> float | None:
    name = channel.sensor.name
    try:
        value = await channel.sensor.read(at)
        if not channel.sensor.is_plausible(value):
            raise SensorFault(f"{value:g} {channel.sensor.quantity.unit} is not plausible")
    except SensorFault as fault:
        channel.faults += 1
        if channel.fault is None:  # once, not at every round of a broken sensor
            log.warning("sensor `%s` is faulty: %s", name, fault, extra={"sensor": name})
        channel.fault = str(fault)
        return None
    if channel.fault is not None:
        log.info("sensor `%s` works again", name, extra={"sensor": name})
    channel.value, channel.at, channel.fault = value, at, None
    channel.readings += 1
    return value


def _alarm(name: str, settings: Settings) -> Alarm:
    limits = getattr(settings.alarms, name)
    return Alarm(name, limits.low, limits.high, limits.hysteresis)


def _log_change(change: Change) -> None:
    fields = {"sensor": change.sensor, "alarm": change.level.value, "value": change.value}
    if change.level is Level.NORMAL:
        log.info("alarm of `%s` ended at %g", change.sensor, change.value, extra=fields)
    else:
        log.warning(
            "alarm: `%s` is %s, %g (limit %g)",
            change.sensor,
            change.level.value,
            change.value,
            change.limit,
            extra=fields,
        )
