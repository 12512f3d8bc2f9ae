"""Simulated probes: a day curve, noise and now and then a fault; the same seed, the same words.

They send chip words, not values, so that everything after the wire is the real code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from math import cos, pi
from random import Random

from greenhouse.sensors import SensorFault
from greenhouse.units import SOIL_DRY_WORD, SOIL_WET_WORD, WORD_MAX


@dataclass(frozen=True)
class Curve:
    """Mean value, day swing (highest at 14:00) and noise, and how the chip encodes them."""

    mean: float
    swing: float
    noise: float
    to_word: Callable[[float], float]


CURVES = {
    "temperature": Curve(22, 5, 0.15, lambda celsius: (celsius + 45) / 175 * WORD_MAX),
    "humidity": Curve(62, -14, 0.6, lambda percent: percent / 100 * WORD_MAX),
    "soil": Curve(
        48, -4, 0.3, lambda percent: SOIL_DRY_WORD - percent / 100 * (SOIL_DRY_WORD - SOIL_WET_WORD)
    ),
    # Below the horizon the curve is negative: the chip then reports darkness.
    "light": Curve(8_000, 22_000, 40, lambda lux: max(lux, 0) * 1.2),
}


class SimulatedProbe:
    """One simulated chip."""

    def __init__(self, name: str, seed: int, fault_rate: float) -> None:
        self._curve = CURVES[name]
        # Not `hash`: it differs between processes. Not for secrets either.
        self._random = Random(f"{seed}/{name}")  # noqa: S311
        self._fault_rate = fault_rate

    async def read_word(self, at: datetime) -> int:
        """The chip's word at the time of day of `at`."""
        if self._random.random() < self._fault_rate:
            raise SensorFault("checksum of the answer is wrong")
        hour = at.hour + at.minute / 60 + at.second / 3600
        sun = cos((hour - 14) / 24 * 2 * pi)
        noise = self._random.gauss(0, self._curve.noise)
        value = self._curve.mean + self._curve.swing * sun + noise
        return min(max(round(self._curve.to_word(value)), 0), WORD_MAX)
