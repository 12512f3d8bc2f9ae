"""The station's numbers in Prometheus' text format, version 0.0.4."""

from collections.abc import Iterable
from datetime import datetime

from greenhouse import __version__
from greenhouse.alarms import Level
from greenhouse.station import Station

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Label values are our own words: none needs escaping.
Sample = tuple[str, float]


def render(station: Station, now: datetime) -> str:
    """The whole page."""
    channels = station.channels
    latest = {n: c for n, c in channels.items() if c.value is not None}
    labelled = {name: f'{{sensor="{name}"}}' for name in channels}
    families = [
        _family("build_info", "gauge", "Version.", [(f'{{version="{__version__}"}}', 1)]),
        _family(
            "uptime_seconds",
            "gauge",
            "Time since the start.",
            [("", (now - station.started).total_seconds())],
        ),
        _family(
            "reading",
            "gauge",
            "Latest reading.",
            [
                (f'{{sensor="{n}",unit="{c.sensor.quantity.unit}"}}', c.value or 0.0)
                for n, c in latest.items()
            ],
        ),
        _family(
            "reading_timestamp_seconds",
            "gauge",
            "When it was taken.",
            [(labelled[n], c.at.timestamp()) for n, c in latest.items() if c.at],
        ),
        _family(
            "readings_total",
            "counter",
            "Readings taken.",
            [(labelled[n], c.readings) for n, c in channels.items()],
        ),
        _family(
            "sensor_faults_total",
            "counter",
            "Tries that gave no reading.",
            [(labelled[n], c.faults) for n, c in channels.items()],
        ),
        _family(
            "alarm",
            "gauge",
            "1 while the alarm is on.",
            [(labelled[n], c.alarm.level is not Level.NORMAL) for n, c in channels.items()],
        ),
        _family(
            "derived",
            "gauge",
            "Value computed from the latest readings.",
            [
                (f'{{quantity="{name}",unit="{d.unit}"}}', d.value)
                for name, d in station.derived().items()
            ],
        ),
    ]
    return "".join(families)


def _family(name: str, kind: str, help_text: str, samples: Iterable[Sample]) -> str:
    full = f"greenhouse_{name}"
    lines = [f"{full}{labels} {float(value):.15g}\n" for labels, value in samples]
    return f"# HELP {full} {help_text}\n# TYPE {full} {kind}\n" + "".join(lines)
