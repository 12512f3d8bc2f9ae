"""Storage on a real SQLite file."""

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from greenhouse import storage
from greenhouse.alarms import Change, Level
from greenhouse.storage import DATABASE, MIGRATIONS, Storage, StorageError

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)


def test_readings_come_back_newest_first_and_old_ones_are_pruned(tmp_path: Path) -> None:
    async def body() -> None:
        store = await Storage.open(tmp_path / "new" / "directory")
        for hour in range(3):
            await store.add_readings(NOON + timedelta(hours=hour), {"soil": hour, "light": 10.0})
        await store.add_alarm(NOON, Change("soil", Level.LOW, 0, 25))
        assert [r["value"] for r in await store.readings("soil", 2)] == [2, 1]
        assert (await store.readings("soil", 1))[0]["at"] == "2025-06-01T14:00:00.000Z"
        assert len(await store.readings(None, 100)) == 6
        assert await store.prune(NOON + timedelta(hours=1)) == 2
        assert len(await store.readings(None, 100)) == 4
        assert await store.alarms(10) == []
        await store.close()

    asyncio.run(body())


def test_a_database_of_the_first_schema_is_migrated_with_its_data(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / DATABASE) as old:
        old.executescript(MIGRATIONS[0] + "PRAGMA user_version = 1;")
        old.execute("INSERT INTO readings VALUES (0, 'soil', 40)")
    old.close()

    async def body() -> None:
        store = await Storage.open(tmp_path)
        assert await store.readings("soil", 1) == [
            {"at": "1970-01-01T00:00:00.000Z", "sensor": "soil", "value": 40}
        ]
        assert await store.add_start(NOON, "1.0.0") == 1
        await store.close()

    asyncio.run(body())


def test_a_migration_that_fails_leaves_the_schema_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = (*MIGRATIONS, "CREATE TABLE extra (a); CREATE TABLE readings (a);")
    monkeypatch.setattr(storage, "MIGRATIONS", broken)
    with pytest.raises(StorageError, match="already exists"):
        asyncio.run(Storage.open(tmp_path))
    db = sqlite3.connect(tmp_path / DATABASE)
    assert db.execute("PRAGMA user_version").fetchone() == (2,)
    assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'extra'").fetchone() == (0,)
    db.close()


def test_an_older_release_works_on_a_newer_schema(tmp_path: Path) -> None:
    async def body() -> None:
        await (await Storage.open(tmp_path)).close()
        db = sqlite3.connect(tmp_path / DATABASE)
        db.executescript("CREATE TABLE future (a); PRAGMA user_version = 99;")
        db.close()
        store = await Storage.open(tmp_path)
        await store.add_readings(NOON, {"soil": 1})
        await store.close()

    asyncio.run(body())


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"this is not SQLite" * 100)
    with pytest.raises(StorageError, match=r"greenhouse.db`: file is not a database"):
        asyncio.run(Storage.open(tmp_path))
