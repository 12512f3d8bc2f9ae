"""Settings: which layer wins, and what is said of a wrong one."""

import tomllib
from pathlib import Path

import pytest
from conftest import greenhouse

from greenhouse.settings import PREFIX, Settings, SettingsError, keys_of, load


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "greenhouse.toml"
    file.write_text(text)
    return file


def test_the_environment_wins_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, 'interval = "5s"\n[http]\nport = 1\n[alarms.temperature]\nhigh = 30\n')
    loaded = load(file, {"GREENHOUSE_HTTP_PORT": "2", "GREENHOUSE_ALARMS_SOIL_LOW": "30"})
    assert loaded.settings.interval == 5
    assert loaded.settings.http.port == 2
    assert loaded.settings.http.host == "127.0.0.1"
    assert loaded.settings.alarms.temperature.model_dump() == {
        "low": 8, "high": 30, "hysteresis": 1,
    }  # fmt: skip
    assert loaded.settings.alarms.soil.low == 30
    assert loaded.sources["http.port"] == "GREENHOUSE_HTTP_PORT"
    assert loaded.sources["interval"] == f"`{file}`"


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        ("", {"GREENHOUSE_HTTP_PORT": "99999"}, "`http.port` (from GREENHOUSE_HTTP_PORT): input"),
        ("", {"GREENHOUSE_INTERVAL": "5"}, "`interval` (from GREENHOUSE_INTERVAL): a duration is"),
        ("http = 3", {"GREENHOUSE_HTTP_PORT": "1"}, "`http` (from `FILE`): must be a table"),
        ("[http]\nprot = 1", {}, "`http.prot` (from `FILE`): no such setting"),
        ("[alarms.soil]\nlow = 90", {}, "`alarms.soil` (from `FILE`): `high` must be above"),
        ("[http", {}, "`FILE` is not valid TOML: "),
    ],
)
def test_a_wrong_setting_is_named_with_its_source(
    tmp_path: Path, text: str, environ: dict[str, str], expected: str
) -> None:
    file = write(tmp_path, text)
    with pytest.raises(SettingsError) as error:
        load(file, environ)
    assert str(error.value).replace(str(file), "FILE").startswith(expected)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read .*nowhere.toml`: No such file"):
        load(tmp_path / "nowhere.toml", {})


def test_unknown_variables_are_told_but_not_refused() -> None:
    assert load(None, {"GREENHOUSE_COLOUR": "green"}).unknown_variables == ["GREENHOUSE_COLOUR"]


def test_the_command_checks_the_settings_and_exits_with_2(tmp_path: Path) -> None:
    (tmp_path / "greenhouse.toml").write_text("[log]\nlevel = 'loud'\n")
    bad = greenhouse(tmp_path, "--check-config")
    assert bad.returncode == 2
    assert "error: `log.level` (from `" in bad.stderr
    good = greenhouse(tmp_path, "--check-config", GREENHOUSE_LOG_LEVEL="debug")
    assert good.returncode == 0
    assert "log.level = debug  (GREENHOUSE_LOG_LEVEL)" in good.stdout


def test_the_schema_in_pyproject_matches_the_settings() -> None:
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    schema = tomllib.loads(pyproject.read_text())["tool"]["pytheas"]["config"]
    variables = {PREFIX + key.replace(".", "_").upper() for key in keys_of(Settings)}
    environ = {option["env"]: str(option["default"]) for option in schema.values()}
    assert environ.keys() <= variables
    assert load(None, environ).settings == Settings()
