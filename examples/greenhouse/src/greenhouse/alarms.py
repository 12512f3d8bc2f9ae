"""Alarm rules: a value outside its limits raises an alarm, once, until it is well inside again.

Pure: values in, changes out. Hysteresis keeps a value that trembles at a limit from raising an
alarm at every reading.
"""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """Where a value stands."""

    NORMAL = "normal"
    LOW = "low"
    HIGH = "high"


@dataclass(frozen=True)
class Change:
    """An alarm was raised (`level` is low or high) or has ended (`level` is normal)."""

    sensor: str
    level: Level
    value: float
    limit: float


class Alarm:
    """The alarm of one sensor. Invariant: the two limits are more than two hysteresis apart."""

    def __init__(self, sensor: str, low: float, high: float, hysteresis: float) -> None:
        self.sensor = sensor
        self.level = Level.NORMAL
        self._low, self._high, self._hysteresis = low, high, hysteresis

    def update(self, value: float) -> Change | None:
        """Takes the next value; the change it makes, if any."""
        before, self.level = self.level, self._level_of(value)
        if self.level is before:
            return None
        side = before if self.level is Level.NORMAL else self.level
        limit = self._low if side is Level.LOW else self._high
        return Change(self.sensor, self.level, value, limit)

    def _level_of(self, value: float) -> Level:
        # An alarm that is on has its limit moved inwards.
        low = self._low + (self._hysteresis if self.level is Level.LOW else 0)
        high = self._high - (self._hysteresis if self.level is Level.HIGH else 0)
        if value < low:
            return Level.LOW
        return Level.HIGH if value > high else Level.NORMAL
