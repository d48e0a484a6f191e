"""A storeconf store on a store of py-key-value.

Each namespace is a collection. Collections and keys get names of ``a-z``, ``0-9`` and ``_`` that are short enough for
every backend of the library: as they are where that is possible, else a hash, with the full key in the value. Values
are ``{"k": key, "v": Base64, "e": milliseconds since 1970 or null}``, with the Base64 of the key as ``"b"`` instead of
``"k"`` where it contains NUL, which PostgreSQL takes in no text. The expiry is ours, to the millisecond; the
library's own, which is later, only reclaims expired entries.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import gc
import hashlib
import logging
import re
import time
import warnings
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from weakref import WeakValueDictionary

from key_value.aio.errors import DeserializationError
from key_value.aio.protocols.key_value import AsyncCullProtocol, AsyncEnumerateKeysProtocol

from storeconf import (
    Capabilities,
    StoreBase,
    StoreError,
    StoreUnavailableError,
    UnsupportedOperationError,
    survives_delete_all,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

__all__ = ["KeyValueStore"]

T = TypeVar("T")
Path = tuple[str, ...]

PAGE: Final = 10_000
"""The most names that the library lists; it has no pagination."""

BATCH: Final = 100
AT_ONCE: Final = 50
"""Calls of the library under way at once in an event loop; its clients open a connection for each, or refuse."""

LONGEST_TTL: Final = 10 * 365 * 86_400_000
"""Milliseconds; what lives longer is left to our own expiry, because not every backend can count so far."""

NAMES: Final = "names"
"""The collection that lists the namespaces which were ever written to."""

_SIMPLE: Final = re.compile(r"[a-z0-9]{1,48}\Z")
_WRITES: Final = frozenset({"set", "delete", "set_many", "delete_many", "delete_all"})
_logger: Final = logging.getLogger(__name__)


class Entry(NamedTuple):
    """The value under a key, and its end in milliseconds since 1970."""

    value: bytes
    end: int | None


class _Loop:
    """The objects of one event loop: the library's store, if it has connections, and locks."""

    def __init__(self) -> None:
        self.library: Any = None
        self.locks: WeakValueDictionary[tuple[Path, str], asyncio.Lock] = WeakValueDictionary()
        self.turns = asyncio.Semaphore(AT_ONCE)


async def _leave_in(loop: asyncio.AbstractEventLoop, library: Any) -> None:
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(library.__aexit__(None, None, None), loop))


def _let_go(ended: list[_Loop]) -> None:
    """Free the connections of loops that run no longer: nothing can close them in any other way."""
    if any(each.library is not None for each in ended):
        ended.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


class KeyValueStore(StoreBase):
    """Keeps its entries in a store of py-key-value, which ``make`` makes.

    Stores with connections are made again at each opening, one for each event loop.
    """

    def __init__(
        self, make: Callable[[], Any], *, capabilities: Capabilities | None = None, secrets: Iterable[str] = ()
    ) -> None:
        super().__init__()
        self.capabilities = Capabilities() if capabilities is None else capabilities
        self._make = make
        self._secrets = tuple(secret for secret in secrets if secret)
        self._data: Any = None
        self._forget()

    def _forget(self) -> None:
        self._named: set[Path] = set()
        self._loops: dict[asyncio.AbstractEventLoop, _Loop] = {}

    # ------------------------------------------------------------------ life cycle

    async def do_open(self) -> None:
        await self._ask("open", self._made)

    async def _made(self) -> Any:
        return self._library

    @property
    def _loop(self) -> _Loop:
        loop = asyncio.get_running_loop()
        try:
            return self._loops[loop]
        except KeyError:
            _let_go([self._loops.pop(each) for each in list(self._loops) if each.is_closed()])
            return self._loops.setdefault(loop, _Loop())

    @property
    def _library(self) -> Any:
        """The library's store: one for all loops if it is mere data, else one for each, with its connections."""
        if self._data is not None:
            return self._data
        here = self._loop
        if here.library is None:
            with warnings.catch_warnings():
                # The library's, about stores whose API may change; our dependency on it is pinned for that reason.
                warnings.filterwarnings("ignore", "A configured store is unstable", UserWarning)
                here.library = self._make()
            if not hasattr(here.library, "__aexit__"):
                self._data = here.library
        return here.library

    async def do_close(self) -> None:
        loops = self._loops
        self._forget()
        running = asyncio.get_running_loop()
        for loop in list(loops):
            if loops[loop].library is self._data or loops[loop].library is None:
                del loops[loop]
            elif loop is running:
                await self._ask("close", loops.pop(loop).library.__aexit__, None, None, None)
            elif loop.is_running():
                await self._ask("close", _leave_in, loop, loops.pop(loop).library)
        ended = list(loops.values())
        loops.clear()
        _let_go(ended)

    def do_forget(self) -> None:
        self._inherited = self._loops  # kept, so that nobody closes what the parent has
        self._forget()

    async def _ask(self, operation: str, call: Callable[..., Awaitable[T]], *args: Any, **named: Any) -> T:
        """Call the library; every error, of any client, becomes a `StoreUnavailableError`.

        Some clients make an error of their own of a cancellation, or nothing at all; it is raised here.
        """
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        try:
            async with self._loop.turns:
                result = await call(*args, **named)
        except (StoreError, DeserializationError):
            raise
        except Exception as error:
            if task is not None and task.cancelling() > before:
                raise asyncio.CancelledError from error
            text = f"{type(error).__name__}: {error}"
            for secret in self._secrets:
                text = text.replace(secret, "***")
            raise StoreUnavailableError(text, operation=operation, outcome_unknown=operation in _WRITES) from error
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError
        return result

    @asynccontextmanager
    async def _writing(self, path: Path, keys: Iterable[str]) -> AsyncIterator[None]:
        """Keep other writers of this event loop from these keys, so that a renewal brings no old value back."""
        async with AsyncExitStack() as stack:
            for key in sorted(set(keys)):
                lock = self._loop.locks.setdefault((path, key), asyncio.Lock())
                await stack.enter_async_context(lock)
            yield

    # ------------------------------------------------------------------ reading

    async def _read(self, operation: str, path: Path, key: str) -> Entry | None:
        try:
            found = await self._ask(operation, self._library.get, _name(key), collection=_collection(path))
        except DeserializationError as error:
            self._damaged(key, error)
            return None
        return self._entry(key, found)

    async def _read_many(self, operation: str, path: Path, keys: Sequence[str]) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for start in range(0, len(keys), BATCH):
            batch = keys[start : start + BATCH]
            try:
                found = await self._ask(
                    operation, self._library.get_many, [_name(key) for key in batch], collection=_collection(path)
                )
            except DeserializationError:  # of one of them; the others are none the worse for it
                read = [(key, await self._read(operation, path, key)) for key in batch]
            else:
                read = [(key, self._entry(key, each)) for key, each in zip(batch, found, strict=True)]
            entries |= {key: entry for key, entry in read if entry is not None}
        return entries

    def _entry(self, key: str, found: dict[str, Any] | None) -> Entry | None:
        if found is None:
            return None
        try:
            if _key_in(found) != key:
                raise ValueError("it belongs to another key")
            end = found["e"]
            entry = Entry(base64.b64decode(found["v"], validate=True), None if end is None else int(end))
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            self._damaged(key, error)
            return None
        return entry if entry.end is None or entry.end > _now() else None

    def _damaged(self, key: str, error: Exception) -> None:
        _logger.warning("store %r: the entry of key %r is damaged and counts as missing: %s", self.name, key, error)

    async def do_get(self, path: Path, key: str, renew: int | None) -> bytes | None:
        if renew is None:
            entry = await self._read("get", path, key)
            return None if entry is None else entry.value
        async with self._writing(path, [key]):
            entry = await self._read("get", path, key)
            if entry is None:
                return None
            if entry.end is not None and renew > 0:
                await self._put("get", path, {key: entry.value}, _now() + renew)
            elif entry.end is not None:
                await self._remove("get", path, [key])
            return entry.value

    async def do_exists(self, path: Path, key: str) -> bool:
        return await self._read("exists", path, key) is not None

    async def do_expires_in(self, path: Path, key: str) -> int | None:
        entry = await self._read("expires_in", path, key)
        if entry is None:
            return None
        return -1 if entry.end is None else max(1, entry.end - _now())

    async def do_get_with_expiry(self, path: Path, key: str) -> tuple[bytes, int | None] | None:
        entry = await self._read("get_with_expiry", path, key)
        if entry is None:
            return None
        return entry.value, None if entry.end is None else max(1, entry.end - _now())

    async def do_get_many(self, path: Path, keys: list[str]) -> dict[str, bytes]:
        entries = await self._read_many("get_many", path, list(dict.fromkeys(keys)))
        return {key: entry.value for key, entry in entries.items()}

    # ------------------------------------------------------------------ writing

    async def _put(self, operation: str, path: Path, items: dict[str, bytes], end: int | None) -> None:
        if path not in self._named:
            await self._write_name(operation, path)
        ttl = None
        if end is not None:
            left = end - _now()
            ttl = float(-(-left // 1000) + 1) if left <= LONGEST_TTL else None
        await self._ask(
            operation,
            self._library.put_many,
            [_name(key) for key in items],
            [{**_labelled(key), "v": base64.b64encode(value).decode(), "e": end} for key, value in items.items()],
            collection=_collection(path),
            ttl=ttl,
        )

    async def _write_name(self, operation: str, path: Path) -> None:
        """Note that there is such a namespace, for `delete_all` of those above it."""
        library = self._library
        if _lists(library):
            await self._ask(operation, library.put, _collection(path), {"path": list(path)}, collection=NAMES, ttl=None)
        self._named.add(path)

    async def do_set(self, path: Path, key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        async with self._writing(path, [key]):
            end = None if expiry is None else _now() + expiry
            if keep_ttl and (entry := await self._read("set", path, key)) is not None:
                end = entry.end
            await self._put("set", path, {key: value}, end)

    async def do_set_many(self, path: Path, items: dict[str, bytes], expiry: int | None) -> None:
        keys = list(items)
        for start in range(0, len(keys), BATCH):
            batch = keys[start : start + BATCH]
            async with self._writing(path, batch):
                end = None if expiry is None else _now() + expiry
                await self._put("set_many", path, {key: items[key] for key in batch}, end)

    async def _remove(self, operation: str, path: Path, keys: Sequence[str]) -> None:
        await self._ask(
            operation, self._library.delete_many, [_name(key) for key in keys], collection=_collection(path)
        )

    async def do_delete(self, path: Path, key: str) -> bool:
        async with self._writing(path, [key]):
            # The library's own count includes entries that have expired less than a second ago.
            entry = await self._read("delete", path, key)
            await self._remove("delete", path, [key])
        return entry is not None

    async def do_delete_many(self, path: Path, keys: list[str]) -> int:
        deleted = 0
        wanted = list(dict.fromkeys(keys))
        for start in range(0, len(wanted), BATCH):
            batch = wanted[start : start + BATCH]
            async with self._writing(path, batch):
                deleted += len(await self._read_many("delete_many", path, batch))
                await self._remove("delete_many", path, batch)
        return deleted

    # ------------------------------------------------------------------ what needs the names

    async def _names(self, operation: str, collection: str) -> list[str]:
        """The names in a collection, at most a page of them."""
        if not _lists(self._library):
            raise UnsupportedOperationError(
                f"store {self.name!r} can't do {operation}(): {type(self._library).__name__} of py-key-value can't "
                "list its keys",
                operation=operation,
            )
        return await self._ask(operation, self._library.keys, collection, limit=PAGE)

    async def do_keys(self, path: Path, prefix: str) -> AsyncIterator[str]:
        names = await self._names("keys", _collection(path))
        if len(names) >= PAGE:
            raise StoreError(
                f"store {self.name!r} has {PAGE:,} keys or more in one namespace, the most that py-key-value lists"
            )
        for start in range(0, len(names), BATCH):
            for key, _ in await self._named_entries("keys", path, names[start : start + BATCH]):
                if key.startswith(prefix):
                    yield key

    async def _named_entries(self, operation: str, path: Path, names: list[str]) -> list[tuple[str, Entry]]:
        entries = []
        collection = _collection(path)
        try:
            found = await self._ask(operation, self._library.get_many, names, collection=collection)
        except DeserializationError:
            found = []
            for name in names:
                try:
                    found.append(await self._ask(operation, self._library.get, name, collection=collection))
                except DeserializationError as error:
                    self._damaged(name, error)
                    found.append(None)
        for name, each in zip(names, found, strict=True):
            key = _key_in(each) if isinstance(each, dict) else None
            if key is not None and _name(key) == name and (entry := self._entry(key, each)) is not None:
                entries.append((key, entry))
        return entries

    async def do_delete_all(self, path: Path) -> None:
        listed = await self._names("delete_all", NAMES)
        if len(listed) >= PAGE:
            raise StoreError(f"store {self.name!r} has {PAGE:,} namespaces or more, the most that py-key-value lists")
        below = [path]
        for start in range(0, len(listed), BATCH):
            batch = await self._ask(
                "delete_all", self._library.get_many, listed[start : start + BATCH], collection=NAMES
            )
            paths = [tuple(each["path"]) for each in batch if each is not None]
            below += [
                each
                for each in paths
                if each[: len(path)] == path and each != path and not survives_delete_all(each[len(path) :])
            ]
        for each in below:
            await self._delete_names(_collection(each))

    async def _delete_names(self, collection: str) -> None:
        gone: set[str] = set()
        while True:
            listed = await self._names("delete_all", collection)
            names = [name for name in listed if name not in gone]
            for start in range(0, len(names), BATCH):
                await self._ask(
                    "delete_all", self._library.delete_many, names[start : start + BATCH], collection=collection
                )
                await asyncio.sleep(0)  # some stores of the library never wait by themselves
            gone.update(names)
            if len(listed) < PAGE:
                return
            if not names:
                raise StoreError("other writers are faster than delete_all()")

    async def do_delete_expired(self, path: Path) -> None:
        if isinstance(self._library, AsyncCullProtocol):
            await self._ask("delete_expired", self._library.cull)

    async def do_ping(self, path: Path) -> str | None:
        await self.do_exists(path, "storeconf-ping")
        return f"py-key-value {type(self._library).__name__}"


def _lists(library: Any) -> bool:
    return isinstance(library, AsyncEnumerateKeysProtocol)


def _now() -> int:
    return time.time_ns() // 1_000_000


def _name(key: str) -> str:
    """The key for the library."""
    return f"k_{key}" if _SIMPLE.match(key) else f"h_{hashlib.sha256(key.encode()).hexdigest()}"


def _labelled(key: str) -> dict[str, str]:
    """How the full key is stored with the value."""
    return {"b": base64.b64encode(key.encode()).decode()} if "\0" in key else {"k": key}


def _key_in(found: dict[str, Any]) -> str | None:
    """The full key of an entry, or None if it is damaged."""
    try:
        key = base64.b64decode(found["b"], validate=True).decode() if "b" in found else found["k"]
    except (KeyError, TypeError, ValueError):
        return None
    return key if isinstance(key, str) else None


def _collection(path: Path) -> str:
    """The collection for the library: different for each path, also where case is ignored."""
    if all(map(_SIMPLE.match, path)) and len(text := "_".join(("n", *path))) <= 60:
        return text
    return f"h_{hashlib.sha256(':'.join(path).encode()).hexdigest()[:48]}"
