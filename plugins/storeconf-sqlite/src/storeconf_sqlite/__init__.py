"""An SQLite backend for storeconf: one file in WAL mode, safe between processes.

Every operation is one transaction, run in a thread of the store's own, so that the event loop never waits for the disk.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field

from storeconf import (
    Backend,
    BuildContext,
    Capabilities,
    ConfigPath,
    Store,
    StoreBase,
    StoreUnavailableError,
    next_counter,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["SqliteBackend", "SqliteStore"]

T = TypeVar("T")
Path = tuple[str, ...]

START_LIMIT = 20.0
"""Seconds to wait for other processes that prepare the same new file."""

PAGE = 500
"""How many keys are read at a time, so that no transaction is long."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    path TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, expiry INTEGER, PRIMARY KEY (path, key)
) WITHOUT ROWID
"""
LIVE = "path = ? AND key = ? AND (expiry IS NULL OR expiry > ?)"
# Names hold no ':' and ';' follows it, so this range is exactly the paths below one.
BELOW = "(? = '' OR path = ? OR (path >= ? || ':' AND path < ? || ';'))"
# As `storeconf.survives_delete_all`: only storeconf's own namespaces have a name that begins with '-'.
SURVIVES = "(':' || path GLOB '*:-*' AND NOT path GLOB '*-stale')"


class SqliteStore(StoreBase):
    """Keeps entries in one table of an SQLite database."""

    capabilities = Capabilities(persistent=True, shared=True, atomic=Capabilities.ALL_ATOMIC)

    def __init__(self, path: Any, *, durability: Literal["flush", "fsync"] = "flush") -> None:
        super().__init__()
        self.path = path
        self.durability = durability
        self._forget()

    def _forget(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._database: sqlite3.Connection | None = None

    # ------------------------------------------------------------------ life cycle

    async def do_open(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="storeconf-sqlite")
        opened: list[sqlite3.Connection] = []
        try:
            await self._in_thread("open", lambda: opened.append(_connect(self.path, self.durability)))
            self._database = opened.pop()
        except BaseException:
            # A cancelled opening goes on in the thread, which does this afterwards.
            self._thread.submit(lambda: [unneeded.close() for unneeded in opened])
            self._thread.shutdown(wait=False)
            self._forget()
            raise

    async def do_close(self) -> None:
        thread, database = self._thread, self._database
        if thread is not None and database is not None:
            try:
                await asyncio.get_running_loop().run_in_executor(thread, database.close)
            finally:
                thread.shutdown(wait=False)
                self._forget()

    def do_forget(self) -> None:
        # SQLite forbids carrying a connection across a fork; the child opens its own at its next call.
        self._inherited = (self._database, self._thread)
        self._forget()

    async def _in_thread(self, operation: str, work: Callable[[], T]) -> T:
        assert self._thread is not None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailableError(f"{self.path}: {error}", operation=operation) from error

    async def _transact(self, operation: str, work: Callable[[sqlite3.Connection, int], T]) -> T:
        """Run ``work`` in one transaction with the time in milliseconds; it is rolled back if it raises."""

        assert self._database is not None
        return await self._in_thread(operation, partial(_in_transaction, self._database, work))

    async def _read(self, operation: str, sql: str, *arguments: Any) -> list[Any]:
        assert self._database is not None
        return await self._in_thread(operation, partial(_fetch, self._database, sql, arguments))

    # ------------------------------------------------------------------ what every store needs

    async def do_get(self, path: Path, key: str, renew: int | None) -> bytes | None:
        where = _where(path, key)
        if renew is None:
            rows = await self._read("get", f"SELECT value FROM entries WHERE {LIVE}", *where, _now())
            return rows[0][0] if rows else None

        def work(database: sqlite3.Connection, now: int) -> bytes | None:
            found = _live(database, where, now)
            if found is None:
                return None
            if found[1] is not None:
                _expire(database, where, now + renew if renew > 0 else now)
            return found[0]

        return await self._transact("get", work)

    async def do_set(self, path: Path, key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        where = _where(path, key)

        def work(database: sqlite3.Connection, now: int) -> None:
            end = None if expiry is None else now + expiry
            if keep_ttl and (found := _live(database, where, now)) is not None:
                end = found[1]
            _write(database, where, value, end)

        await self._transact("set", work)

    async def do_delete(self, path: Path, key: str) -> bool:
        return await self._transact("delete", lambda database, now: _delete(database, _where(path, key), now))

    async def do_exists(self, path: Path, key: str) -> bool:
        return bool(await self._read("exists", f"SELECT 1 FROM entries WHERE {LIVE}", *_where(path, key), _now()))

    async def do_expires_in(self, path: Path, key: str) -> int | None:
        now = _now()
        rows = await self._read("expires_in", f"SELECT expiry FROM entries WHERE {LIVE}", *_where(path, key), now)
        if not rows:
            return None
        return -1 if rows[0][0] is None else rows[0][0] - now

    async def do_delete_all(self, path: Path) -> None:
        name = ":".join(path)
        await self._transact(
            "delete_all",
            lambda database, now: database.execute(
                f"DELETE FROM entries WHERE {BELOW} AND (path = ? OR NOT {SURVIVES})", (name,) * 5
            ),
        )

    async def do_delete_expired(self, path: Path) -> None:
        name = ":".join(path)
        await self._transact(
            "delete_expired",
            lambda database, now: database.execute(
                f"DELETE FROM entries WHERE {BELOW} AND expiry <= ?", (*(name,) * 4, now)
            ),
        )

    async def do_walk(self, path: Path) -> AsyncIterator[tuple[Path, str]]:
        name = ":".join(path)
        page = f"path >= ? AND {BELOW} GROUP BY path ORDER BY path LIMIT 1"
        at = name
        while rows := await self._read("walk", f"SELECT path FROM entries WHERE {page}", at, *(name,) * 4):
            below = tuple(rows[0][0].split(":")) if rows[0][0] else ()
            async for key in self.do_keys(below, ""):
                yield below[len(path) :], key
            at = rows[0][0] + "\0"

    async def do_keys(self, path: Path, prefix: str) -> AsyncIterator[str]:
        start = prefix.encode()
        # UTF-8 has no byte 0xFF, so there is always a next one: what begins with the prefix lies below it.
        end = start[:-1] + bytes((start[-1] + 1,)) if start else b"\xff"
        page = f"path = ? AND key {{}} ? AND key < ? AND (expiry IS NULL OR expiry > ?) ORDER BY key LIMIT {PAGE}"
        after = ">="
        while True:
            sql = f"SELECT key FROM entries WHERE {page.format(after)}"
            rows = await self._read("keys", sql, ":".join(path), start, end, _now())
            for (key,) in rows:
                yield key.decode()
            if len(rows) < PAGE:
                return
            start, after = rows[-1][0], ">"

    # ------------------------------------------------------------------ atomic operations, and many at once

    async def do_get_many(self, path: Path, keys: list[str]) -> dict[str, bytes]:
        def work(database: sqlite3.Connection, now: int) -> dict[str, bytes]:
            found = ((key, _live(database, _where(path, key), now)) for key in keys)
            return {key: entry[0] for key, entry in found if entry is not None}

        return await self._transact("get_many", work)

    async def do_set_many(self, path: Path, items: dict[str, bytes], expiry: int | None) -> None:
        def work(database: sqlite3.Connection, now: int) -> None:
            for key, value in items.items():
                _write(database, _where(path, key), value, None if expiry is None else now + expiry)

        await self._transact("set_many", work)

    async def do_delete_many(self, path: Path, keys: list[str]) -> int:
        return await self._transact(
            "delete_many", lambda database, now: sum(_delete(database, _where(path, key), now) for key in keys)
        )

    async def do_get_with_expiry(self, path: Path, key: str) -> tuple[bytes, int | None] | None:
        now = _now()
        rows = await self._read(
            "get_with_expiry", f"SELECT value, expiry FROM entries WHERE {LIVE}", *_where(path, key), now
        )
        if not rows:
            return None
        value, end = rows[0]
        return value, None if end is None else end - now

    async def do_add(self, path: Path, key: str, value: bytes, expiry: int | None) -> bool:
        where = _where(path, key)

        def work(database: sqlite3.Connection, now: int) -> bool:
            if _live(database, where, now) is not None:
                return False
            if expiry is None or expiry > 0:
                _write(database, where, value, None if expiry is None else now + expiry)
            return True

        return await self._transact("add", work)

    async def do_touch(self, path: Path, key: str, expiry: int | None) -> bool:
        where = _where(path, key)

        def work(database: sqlite3.Connection, now: int) -> bool:
            if _live(database, where, now) is None:
                return False
            _expire(database, where, None if expiry is None else now + max(0, expiry))
            return True

        return await self._transact("touch", work)

    async def do_pop(self, path: Path, key: str) -> bytes | None:
        where = _where(path, key)

        def work(database: sqlite3.Connection, now: int) -> bytes | None:
            found = _live(database, where, now)
            _remove(database, where)
            return None if found is None else found[0]

        return await self._transact("pop", work)

    async def do_increment(self, path: Path, key: str, by: int, expiry: int | None) -> int:
        where = _where(path, key)

        def work(database: sqlite3.Connection, now: int) -> int:
            found = _live(database, where, now)
            number = next_counter(None if found is None else found[0], by)
            if found is not None:
                _write(database, where, b"%d" % number, found[1])
            elif expiry is None or expiry > 0:
                _write(database, where, b"%d" % number, None if expiry is None else now + expiry)
            return number

        return await self._transact("increment", work)

    async def do_compare_and_set(
        self, path: Path, key: str, old: bytes | None, new: bytes | None, expiry: int | None, keep_ttl: bool
    ) -> bool:
        where = _where(path, key)

        def work(database: sqlite3.Connection, now: int) -> bool:
            found = _live(database, where, now)
            if (None if found is None else found[0]) != old:
                return False
            if new is None:
                _remove(database, where)
            elif keep_ttl:
                _write(database, where, new, None if found is None else found[1])
            else:
                _write(database, where, new, None if expiry is None else now + expiry)
            return True

        return await self._transact("compare_and_set", work)

    async def do_ping(self, path: Path) -> str | None:
        await self._read("ping", "SELECT 1")
        return f"SQLite {sqlite3.sqlite_version}"


def _connect(path: Any, durability: str) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + START_LIMIT
    while True:
        database = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        try:
            _prepare(database, durability)
        except sqlite3.OperationalError as error:
            database.close()
            # SQLite does not wait, whatever the timeout, for others who change the journal mode of a new file.
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            if time.monotonic() > until:
                raise
            time.sleep(random.uniform(0.002, 0.02))
        except BaseException:
            database.close()
            raise
        else:
            return database


def _prepare(database: sqlite3.Connection, durability: str) -> None:
    if database.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        database.execute("PRAGMA journal_mode=WAL")
    database.execute(f"PRAGMA synchronous={'FULL' if durability == 'fsync' else 'OFF'}")
    if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries'").fetchone() is None:
        # Taken for writing from its beginning, so that it waits for others who make the table.
        database.execute("BEGIN IMMEDIATE")
        database.execute(SCHEMA)
        database.execute("COMMIT")


# What runs in the thread holds the database and not the store, so that a store that nobody holds can go.


def _fetch(database: sqlite3.Connection, sql: str, arguments: tuple[Any, ...]) -> list[Any]:
    return database.execute(sql, arguments).fetchall()


def _in_transaction(database: sqlite3.Connection, work: Callable[[sqlite3.Connection, int], T]) -> T:
    database.execute("BEGIN IMMEDIATE")
    try:
        result = work(database, _now())
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
    return result


def _now() -> int:
    return time.time_ns() // 1_000_000


def _where(path: Path, key: str) -> tuple[str, bytes]:
    return ":".join(path), key.encode()


def _live(database: sqlite3.Connection, where: tuple[str, bytes], now: int) -> tuple[bytes, int | None] | None:
    row: tuple[bytes, int | None] | None = database.execute(
        f"SELECT value, expiry FROM entries WHERE {LIVE}", (*where, now)
    ).fetchone()
    return row


def _write(database: sqlite3.Connection, where: tuple[str, bytes], value: bytes, end: int | None) -> None:
    database.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", (*where, value, end))


def _expire(database: sqlite3.Connection, where: tuple[str, bytes], end: int | None) -> None:
    database.execute("UPDATE entries SET expiry = ? WHERE path = ? AND key = ?", (end, *where))


def _delete(database: sqlite3.Connection, where: tuple[str, bytes], now: int) -> bool:
    """Remove the entry; return whether it was there and had not expired."""
    found = database.execute(f"SELECT 1 FROM entries WHERE {LIVE}", (*where, now)).fetchone()
    _remove(database, where)
    return found is not None


def _remove(database: sqlite3.Connection, where: tuple[str, bytes]) -> None:
    database.execute("DELETE FROM entries WHERE path = ? AND key = ?", where)


class SqliteBackend(Backend):
    """Stores in an SQLite database."""

    capabilities = SqliteStore.capabilities

    type: Literal["sqlite"] = "sqlite"
    path: ConfigPath = Field(
        description="The database file; it is made when it is missing.", examples=["var/data.sqlite"]
    )
    durability: Literal["flush", "fsync"] = Field(
        default="flush",
        description="`flush`: a write survives the process. `fsync`: it survives the machine.",
        examples=["fsync"],
    )

    def build(self, context: BuildContext) -> Store:
        """Make the store; the file is opened with the registry."""
        return SqliteStore(self.path, durability=self.durability)

    def location(self) -> tuple[str, ...]:
        """Two roots on one file would share keys."""
        return ("sqlite", str(self.path))
