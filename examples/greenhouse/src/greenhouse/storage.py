"""Readings, alarms and starts in SQLite: `greenhouse.db` in the data directory.

Times are UTC milliseconds since 1970. The schema's version is SQLite's `user_version`. Migrations
only add: after a roll back the older release runs on the newer schema and finds all it knows.
"""

import asyncio
import logging
import os
import sqlite3
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import aiosqlite

from greenhouse.alarms import Change

log = logging.getLogger(__name__)

DATABASE = "greenhouse.db"

# The n-th script brings the schema from version n - 1 to n. Never edit one that was released.
MIGRATIONS = (
    """
    CREATE TABLE readings (at_ms INTEGER NOT NULL, sensor TEXT NOT NULL, value REAL NOT NULL);
    CREATE INDEX readings_by_sensor ON readings (sensor, at_ms);
    CREATE INDEX readings_by_time ON readings (at_ms);
    """,
    """
    CREATE TABLE alarms (at_ms INTEGER NOT NULL, sensor TEXT NOT NULL, level TEXT NOT NULL,
                         value REAL NOT NULL);
    CREATE TABLE starts (at_ms INTEGER NOT NULL, version TEXT NOT NULL);
    """,
)


class StorageError(Exception):
    """The database cannot be opened, read or written; the cause says why."""


def data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """`PYTHEAS_DATA_DIR` (set by the agent), else the user's data directory, else `./data`."""
    if given := environ.get("PYTHEAS_DATA_DIR"):
        return Path(given)
    if xdg := environ.get("XDG_DATA_HOME"):
        return Path(xdg) / "greenhouse"
    return Path("data")


class Storage:
    """The open database. One writer at a time; each write is one transaction."""

    def __init__(self, path: Path, db: aiosqlite.Connection) -> None:
        self.path = path
        self._db = db
        self._writing = asyncio.Lock()

    @classmethod
    async def open(cls, directory: Path) -> Self:
        """Opens or makes the database in `directory` and brings its schema up to date."""
        path = directory / DATABASE
        try:
            directory.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - once, at start
            db = await aiosqlite.connect(path, timeout=5)
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"cannot open `{path}`: {error}") from error
        try:
            # With WAL and NORMAL a killed process loses nothing; a power cut loses at most the
            # last readings, never the database, and spares the SD card a sync per reading.
            await db.execute("PRAGMA journal_mode = WAL")
            await db.execute("PRAGMA synchronous = NORMAL")
            await _migrate(db)
        except sqlite3.Error as error:
            await db.close()
            raise StorageError(f"cannot open `{path}`: {error}") from error
        return cls(path, db)

    async def close(self) -> None:
        """Closes the database; whatever was added is on disk."""
        await self._db.close()

    async def add_readings(self, at: datetime, values: Mapping[str, float]) -> None:
        """Keeps one round of readings, whole or not at all."""
        rows = [(_ms(at), sensor, value) for sensor, value in values.items()]
        await self._write("INSERT INTO readings VALUES (?, ?, ?)", rows)

    async def add_alarm(self, at: datetime, change: Change) -> None:
        """Keeps a change of an alarm."""
        row = (_ms(at), change.sensor, change.level.value, change.value)
        await self._write("INSERT INTO alarms VALUES (?, ?, ?, ?)", [row])

    async def add_start(self, at: datetime, version: str) -> int:
        """Keeps that `version` started; returns how often the program has started here."""
        await self._write("INSERT INTO starts VALUES (?, ?)", [(_ms(at), version)])
        return int((await self._read("SELECT count(*) FROM starts"))[0][0])

    async def readings(self, sensor: str | None, limit: int) -> list[dict[str, Any]]:
        """The newest `limit` readings, newest first, of one sensor or of all."""
        rows = await self._read(
            "SELECT at_ms, sensor, value FROM readings WHERE ?1 IS NULL OR sensor = ?1"
            " ORDER BY at_ms DESC, rowid DESC LIMIT ?2",
            (sensor, limit),
        )
        return [{"at": _iso(at), "sensor": name, "value": value} for at, name, value in rows]

    async def alarms(self, limit: int) -> list[dict[str, Any]]:
        """The newest `limit` changes of alarms, newest first."""
        rows = await self._read(
            "SELECT at_ms, sensor, level, value FROM alarms ORDER BY rowid DESC LIMIT ?", (limit,)
        )
        return [{"at": _iso(at), "sensor": s, "level": lv, "value": v} for at, s, lv, v in rows]

    async def prune(self, before: datetime) -> int:
        """Deletes readings and alarms from before that time; returns how many readings."""
        await self._write("DELETE FROM alarms WHERE at_ms < ?", [(_ms(before),)])
        return await self._write("DELETE FROM readings WHERE at_ms < ?", [(_ms(before),)])

    async def _write(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> int:
        async with self._writing:
            try:
                cursor = await self._db.executemany(sql, rows)
                await self._db.commit()
            except sqlite3.Error as error:
                await self._db.rollback()
                raise StorageError(f"cannot write `{self.path}`: {error}") from error
            return cursor.rowcount

    async def _read(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        # Not between a write and its commit: what is told must not be lost.
        async with self._writing:
            try:
                return list(await self._db.execute_fetchall(sql, values))
            except sqlite3.Error as error:
                raise StorageError(f"cannot read `{self.path}`: {error}") from error


async def _migrate(db: aiosqlite.Connection) -> None:
    version = int(next(iter(await db.execute_fetchall("PRAGMA user_version")))[0])
    if version > len(MIGRATIONS):
        log.warning("the database has schema %d, made by a newer release; using it", version)
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        # One transaction with its number: a kill in between leaves the version before it.
        await db.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")
        log.info("brought the database to schema %d", number, extra={"schema": number})


def _ms(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _iso(at_ms: int) -> str:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
