"""What follows from the readings: values that no sensor measures.

Everything that `derived` returns is shown by `/status` and `/metrics`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log


@dataclass(frozen=True)
class Derived:
    """A computed value and its unit."""

    value: float
    unit: str


# Magnus formula over water, -45..60 °C (Sonntag 1990).
MAGNUS_B = 17.62
MAGNUS_C = 243.12


def dew_point(temperature: float, humidity: float) -> float:
    """Dew point in °C from temperature in °C and relative humidity in percent (above 0)."""
    gamma = log(humidity / 100) + MAGNUS_B * temperature / (MAGNUS_C + temperature)
    return MAGNUS_C * gamma / (MAGNUS_B - gamma)


def derived(values: Mapping[str, float]) -> dict[str, Derived]:
    """Everything that can be computed from the latest `values`, by name."""
    temperature, humidity = values.get("temperature"), values.get("humidity")
    if temperature is None or humidity is None or humidity <= 0:
        return {}
    return {
        "dew_point": Derived(round(dew_point(temperature, humidity), 2), "celsius"),
    }
