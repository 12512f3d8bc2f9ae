"""The pure parts: units, climate, alarms, simulation."""

import asyncio
from datetime import UTC, datetime

import pytest

from greenhouse import units
from greenhouse.alarms import Alarm, Change, Level
from greenhouse.climate import derived, dew_point
from greenhouse.sensors import Sensor, SensorFault, fit
from greenhouse.simulation import SimulatedProbe

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)


def test_words_become_the_values_in_the_data_sheets() -> None:
    assert units.celsius(0) == -45
    assert units.celsius(0xFFFF) == 130
    assert units.relative_humidity(0xFFFF) == 100
    assert units.soil_moisture(units.SOIL_WET_WORD) == 100
    assert units.soil_moisture(units.SOIL_DRY_WORD) == 0
    assert units.lux(12) == pytest.approx(10)


def test_dew_point_follows_the_tables() -> None:
    assert dew_point(20, 100) == pytest.approx(20)
    assert dew_point(25, 60) == pytest.approx(16.7, abs=0.1)


def test_nothing_is_derived_from_half_of_the_readings() -> None:
    assert derived({"temperature": 20}) == {}
    assert derived({"temperature": 20, "humidity": 0}) == {}


def test_an_alarm_is_raised_once_and_ends_well_inside_the_limit() -> None:
    alarm = Alarm("temperature", low=8, high=35, hysteresis=1)
    changes = [alarm.update(value) for value in (30, 35, 35.1, 36, 34.5, 35.5, 34, 30)]
    assert [c.level if c else None for c in changes] == [
        None, None, Level.HIGH, None, None, None, Level.NORMAL, None,
    ]  # fmt: skip
    assert changes[2] == Change("temperature", Level.HIGH, 35.1, 35)


def test_an_alarm_may_go_from_high_to_low_at_once() -> None:
    alarm = Alarm("soil", low=25, high=85, hysteresis=2)
    assert alarm.update(90) == Change("soil", Level.HIGH, 90, 85)
    assert alarm.update(10) == Change("soil", Level.LOW, 10, 25)
    assert alarm.update(26.9) is None
    assert alarm.update(27) == Change("soil", Level.NORMAL, 27, 25)


def _day(seed: int) -> list[tuple[str, float]]:
    async def read() -> list[tuple[str, float]]:
        sensors = fit(lambda name: SimulatedProbe(name, seed, fault_rate=0))
        hours = [NOON.replace(hour=hour) for hour in range(24)]
        return [(s.name, await s.read(hour)) for hour in hours for s in sensors]

    return asyncio.run(read())


def test_a_simulated_day_is_plausible_and_the_same_for_the_same_seed() -> None:
    day = _day(1)
    assert day == _day(1)
    assert day != _day(2)
    sensors = {s.name: s for s in fit(lambda name: SimulatedProbe(name, 1, 0))}
    assert all(sensors[name].is_plausible(value) for name, value in day)
    light = [value for name, value in day if name == "light"]
    assert min(light) == 0
    assert max(light) > 20_000


def test_a_silent_probe_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        async def read_word(self, at: datetime) -> int:
            await asyncio.sleep(3600)
            return 0

    monkeypatch.setattr("greenhouse.sensors.READ_TIMEOUT_S", 0.01)
    sensor: Sensor = fit(lambda _: Silent())[0]
    with pytest.raises(SensorFault, match="no answer"):
        asyncio.run(sensor.read(NOON))
