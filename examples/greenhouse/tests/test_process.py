"""The whole gateway: a process, its supervisor's socket, HTTP over loopback, signals."""

import json
import re
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import PATIENCE, WAIT_S, Gateway, greenhouse

from greenhouse import __version__
from greenhouse.storage import DATABASE

Start = Callable[..., Gateway]


def test_ready_comes_only_when_everything_works(start: Start) -> None:
    gateway = start(GREENHOUSE_SENSORS_FAULT_RATE="0").ready()
    assert gateway.get("/healthz") == (200, "ok\n")
    status = gateway.json("/status")
    assert status["version"] == __version__
    assert status["healthy"] is True
    assert set(status["sensors"]) == {"temperature", "humidity", "soil", "light"}
    assert all(sensor["value"] is not None for sensor in status["sensors"].values())
    assert status["derived"]["dew_point"]["unit"] == "celsius"
    assert [m.split("\n")[0] for m in gateway.messages] == [
        "STATUS=opening the database",
        "STATUS=testing storage and sensors",
        "READY=1",
    ]


def test_readings_can_be_asked_for(start: Start) -> None:
    gateway = start(GREENHOUSE_SENSORS_FAULT_RATE="0").ready()
    time.sleep(0.5)
    readings = gateway.json("/readings?sensor=soil&limit=3")["readings"]
    assert len(readings) == 3
    assert {r["sensor"] for r in readings} == {"soil"}
    assert readings == sorted(readings, key=lambda r: r["at"], reverse=True)
    for query, key in [("sensor=x", "sensor"), ("limit=0", "limit"), ("limit=9999999999", "limit")]:
        code, body = gateway.get(f"/readings?{query}")
        assert code == 400
        assert json.loads(body)["error"].startswith(f"`{key}` must be")
    assert gateway.get("/nothing")[0] == 404


def test_metrics_are_prometheus_text(start: Start) -> None:
    gateway = start(GREENHOUSE_SENSORS_FAULT_RATE="0.5").ready()
    time.sleep(0.5)
    page = gateway.get("/metrics")[1]
    sample = re.compile(r'greenhouse_\w+(\{(\w+="[^"\\]*",?)+\})? -?[\d.e+]+')
    lines = [line for line in page.splitlines() if not line.startswith("# ")]
    assert lines
    assert [line for line in lines if not sample.fullmatch(line)] == []
    assert f'greenhouse_build_info{{version="{__version__}"}} 1' in lines
    faults = [line for line in lines if line.startswith("greenhouse_sensor_faults_total")]
    assert sum(float(line.split()[-1]) for line in faults) > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_cleanly_within_two_seconds(start: Start, number: int) -> None:
    gateway = start().ready()
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as idle:
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")  # never finished
        code, seconds = gateway.end(number)
    assert code == 0
    assert seconds < 2 * PATIENCE
    gateway.wait_for("STOPPING=1")
    assert "Traceback" not in gateway.log.read_text()


def test_a_killed_gateway_keeps_its_data_and_starts_again(start: Start) -> None:
    first = start().ready()
    time.sleep(0.5)
    stored = first.json("/readings?limit=1000")["readings"]
    assert stored
    assert first.end(signal.SIGKILL)[0] == -signal.SIGKILL
    second = start().ready()
    kept = second.json("/readings?limit=1000")["readings"]
    assert [r for r in stored if r not in kept] == []
    assert "start 2 on this data" in second.log.read_text()


def test_an_alarm_is_logged_once_kept_and_shown(start: Start) -> None:
    environ = {"GREENHOUSE_ALARMS_TEMPERATURE_HIGH": "12", "GREENHOUSE_SENSORS_FAULT_RATE": "0"}
    gateway = start(**environ).ready()
    time.sleep(0.5)
    status = gateway.json("/status")
    assert status["sensors"]["temperature"]["alarm"] == "high"
    assert [(a["sensor"], a["level"]) for a in status["alarms"]] == [("temperature", "high")]
    assert 'greenhouse_alarm{sensor="temperature"} 1' in gateway.get("/metrics")[1]
    assert gateway.log.read_text().count("alarm: `temperature` is high") == 1


def test_the_watchdog_is_fed_while_readings_are_stored(start: Start) -> None:
    gateway = start(WATCHDOG_USEC="200000").ready()
    for _ in range(3):
        gateway.wait_for("WATCHDOG=1")


def test_a_lost_round_is_logged_and_the_gateway_goes_on(start: Start) -> None:
    gateway = start(GREENHOUSE_SENSORS_FAULT_RATE="0").ready()
    db = sqlite3.connect(gateway.data / DATABASE)
    db.executescript("ALTER TABLE readings RENAME TO hidden")
    time.sleep(0.5)
    db.executescript("ALTER TABLE hidden RENAME TO readings")
    db.close()
    assert "this round of readings is lost: cannot write" in gateway.log.read_text()
    before = len(gateway.json("/readings?limit=1000")["readings"])
    time.sleep(0.5)
    assert len(gateway.json("/readings?limit=1000")["readings"]) > before


def test_broken_sensors_end_the_start_before_ready(start: Start) -> None:
    gateway = start(GREENHOUSE_SENSORS_FAULT_RATE="1")
    assert gateway.process.wait(WAIT_S) == 1
    with pytest.raises(AssertionError, match="no READY=1"):
        gateway.wait_for("READY=1")
    assert "self-test failed: sensor `temperature` gave no reading" in gateway.log.read_text()


def test_a_port_in_use_is_named(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        gateway = start(GREENHOUSE_HTTP_PORT=str(port))
        assert gateway.process.wait(WAIT_S) == 1
    expected = f"cannot listen on 127.0.0.1:{port} (`http.port`): Address already in use"
    assert expected in gateway.log.read_text()


def test_json_logs_have_one_object_per_line(start: Start) -> None:
    gateway = start(GREENHOUSE_LOG_FORMAT="json", GREENHOUSE_COLOUR="1").ready()
    gateway.end()
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines()]
    assert {line["level"] for line in lines} <= {"info", "warning"}
    assert next(line for line in lines if "url" in line)["url"] == gateway.url
    assert next(line for line in lines if "variable" in line)["variable"] == "GREENHOUSE_COLOUR"


def test_once_prints_the_readings_and_keeps_them(tmp_path: Path) -> None:
    done = greenhouse(tmp_path, "--once", GREENHOUSE_SENSORS_FAULT_RATE="0")
    assert done.returncode == 0
    assert set(json.loads(done.stdout)) == {"temperature", "humidity", "soil", "light"}
    db = sqlite3.connect(tmp_path / DATABASE)
    assert db.execute("SELECT count(*) FROM readings").fetchone() == (4,)
    db.close()


def test_the_version_is_the_one_in_pyproject(tmp_path: Path) -> None:
    assert greenhouse(tmp_path, "--version").stdout == f"greenhouse {__version__}\n"
