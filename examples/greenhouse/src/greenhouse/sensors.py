"""Sensors: what they measure, and the protocol that a real probe has to follow.

To use real hardware write a class with `read_word` (I²C, 1-Wire, ADC, ...) and pass it to `fit`
instead of `simulation.SimulatedProbe`.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from greenhouse import units

READ_TIMEOUT_S = 2.0


class SensorFault(Exception):
    """A probe gave no usable answer; the next try may succeed."""


class Probe(Protocol):
    """The wire to one sensor chip."""

    async def read_word(self, at: datetime) -> int:
        """The chip's current word; raises `SensorFault` when it gives none."""
        ...


@dataclass(frozen=True)
class Quantity:
    """What a sensor measures and which values can be true in a greenhouse."""

    unit: str
    low: float
    high: float
    from_word: Callable[[int], float]


QUANTITIES: Mapping[str, Quantity] = {
    "temperature": Quantity("celsius", -10, 50, units.celsius),
    "humidity": Quantity("percent", 1, 100, units.relative_humidity),
    "soil": Quantity("percent", 0, 100, units.soil_moisture),
    "light": Quantity("lux", 0, 54_613, units.lux),
}


@dataclass(frozen=True)
class Sensor:
    """A quantity and the probe that measures it."""

    name: str
    quantity: Quantity
    probe: Probe

    async def read(self, at: datetime) -> float:
        """The value now; raises `SensorFault` when there is none in `READ_TIMEOUT_S`."""
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                word = await self.probe.read_word(at)
        except TimeoutError as error:
            raise SensorFault(f"no answer in {READ_TIMEOUT_S:g} s") from error
        return round(self.quantity.from_word(word), 2)

    def is_plausible(self, value: float) -> bool:
        """Whether `value` can be true in a greenhouse."""
        return self.quantity.low <= value <= self.quantity.high


def fit(probe_for: Callable[[str], Probe]) -> list[Sensor]:
    """One sensor for each quantity, with the probe that `probe_for` gives for its name."""
    return [Sensor(name, quantity, probe_for(name)) for name, quantity in QUANTITIES.items()]
