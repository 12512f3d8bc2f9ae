"""Settings: defaults, then a TOML file, then the environment; the later one wins.

Every setting has a key (`http.port`) and an environment variable made from it
(`GREENHOUSE_HTTP_PORT`). A wrong value is refused with its key and where it came from.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

PREFIX = "GREENHOUSE_"
CONFIG_VARIABLE = "GREENHOUSE_CONFIG"  # names the file; not a setting
UNIT_S = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


class SettingsError(Exception):
    """The settings are wrong; the text names each key, its source and the reason."""


def _seconds(value: object) -> object:
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+)\s*(ms|s|m|min|h|d)", value.strip())
        if not match:
            raise ValueError("a duration is a whole number and a unit, e.g. `500ms`, `30s`, `7d`")
        return int(match[1]) * UNIT_S[match[2]]
    raise ValueError("a duration is text with a unit, e.g. `30s`")


Duration = Annotated[float, BeforeValidator(_seconds)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Http(_Section):
    host: str = "127.0.0.1"
    port: int = Field(8480, ge=0, le=65535)


class Log(_Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Sensors(_Section):
    seed: int = 1
    fault_rate: float = Field(0.01, ge=0, le=1)


class Limits(_Section):
    low: float
    high: float
    hysteresis: float = Field(ge=0)

    @model_validator(mode="after")
    def _limits_are_apart(self) -> Self:
        if self.high - self.low <= 2 * self.hysteresis:
            raise ValueError("`high` must be above `low` by more than twice `hysteresis`")
        return self


class Alarms(_Section):
    temperature: Limits = Limits(low=8, high=35, hysteresis=1)
    humidity: Limits = Limits(low=30, high=90, hysteresis=3)
    soil: Limits = Limits(low=25, high=85, hysteresis=2)
    light: Limits = Limits(low=-1, high=50_000, hysteresis=1_000)


class Settings(_Section):
    interval: Duration = Field(10.0, gt=0, le=86400)
    retention: Duration = Field(30 * 86400.0, ge=60, le=36_500 * 86400)
    http: Http = Http()
    log: Log = Log()
    sensors: Sensors = Sensors()
    alarms: Alarms = Alarms()


@dataclass(frozen=True)
class Loaded:
    """The settings, where each one that is not a default came from, and what was ignored."""

    settings: Settings
    sources: Mapping[str, str]
    unknown_variables: list[str]

    def table(self) -> str:
        """One `key = value  (source)` line per setting."""
        values = dict(_leaves(self.settings.model_dump()))
        return "\n".join(
            f"{key} = {value}  ({self.sources.get(key, 'default')})"
            for key, value in values.items()
        )


def load(file: Path | None, environ: Mapping[str, str]) -> Loaded:
    """Reads the settings; raises `SettingsError`."""
    given: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if file:
        given = _read(file)
        sources = {key: f"`{file}`" for key, _ in _leaves(given)}
    keys = {PREFIX + key.replace(".", "_").upper(): key for key in keys_of(Settings)}
    for variable, key in keys.items():
        if variable in environ and _put(given, key, environ[variable]):
            sources[key] = variable
    try:
        settings = Settings.model_validate(_with_alarm_defaults(given))
    except ValidationError as error:
        raise SettingsError(_explain(error, sources)) from error
    known = {*keys, CONFIG_VARIABLE}
    unknown = sorted(v for v in environ if v.startswith(PREFIX) and v not in known)
    return Loaded(settings, sources, unknown)


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The keys of all settings in `model`, with dots."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys_of(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read `{file}`: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"`{file}` is not valid TOML: {error}") from error


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _put(table: dict[str, Any], key: str, value: str) -> bool:
    """Sets `key` in nested tables; False when a plain value is in the way (validation tells)."""
    *sections, last = key.split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            return False
    table[last] = value
    return True


def _with_alarm_defaults(given: dict[str, Any]) -> dict[str, Any]:
    """Limits that give only `high` keep the default `low` of their sensor."""
    alarms = given.get("alarms")
    if not isinstance(alarms, dict):
        return given
    defaults: dict[str, dict[str, float]] = Alarms().model_dump()
    filled = {
        sensor: {**defaults.get(sensor, {}), **limits} if isinstance(limits, dict) else limits
        for sensor, limits in alarms.items()
    }
    return {**given, "alarms": filled}


def _explain(error: ValidationError, sources: Mapping[str, str]) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(map(str, problem["loc"]))
        source = next((s for k, s in sources.items() if f"{k}.".startswith(f"{key}.")), "the file")
        if problem["type"] == "extra_forbidden":
            lines.append(f"`{key}` (from {source}): no such setting")
            continue
        if problem["type"] == "model_type":
            lines.append(f"`{key}` (from {source}): must be a table, `[{key}]`")
            continue
        reason = problem["msg"].removeprefix("Value error, ")
        shown = "" if isinstance(problem["input"], dict) else f"; it is `{problem['input']}`"
        lines.append(f"`{key}` (from {source}): {reason[0].lower()}{reason[1:]}{shown}")
    return "\n".join(lines)
