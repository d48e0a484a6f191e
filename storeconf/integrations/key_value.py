"""py-key-value: a store of a layout as an ``AsyncKeyValue``, in which FastMCP and other libraries keep their data.

storage = StoreconfKeyValue("mcp", "storeconf.yaml")
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from key_value.aio.errors import DeserializationError, InvalidTTLError, SerializationError

from storeconf.integrations._sessions import registry_from
from storeconf.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from types import TracebackType
    from typing import SupportsFloat

    from storeconf.integrations._sessions import Source
    from storeconf.registry import StoreRegistry

__all__ = ["StoreconfKeyValue"]

T = TypeVar("T")

_DEFAULT_COLLECTION = "default_collection"  # as py-key-value's own stores call it

_ESCAPED = "q-"
"""How the namespaces begin of collections whose names can't name a namespace; no other collection's does."""

_PLAIN = re.compile(r"(?!q-)[A-Za-z0-9][A-Za-z0-9_-]*")


class StoreconfKeyValue:
    """Keeps each collection in a namespace of a store; has every protocol of py-key-value.

    ``store`` is a store, or the name of one in ``source``: a source of `storeconf.load`, or a registry. ``async with``
    opens it for as long as the application runs; it opens at its first use, too. Values are stored as JSON and expire
    by the store's own clock, so the store's middleware applies. A collection whose name can't name a namespace is kept
    in ``q-`` and the name with all but letters, digits and ``-`` written as ``_`` and two hexadecimal digits per byte.

    Errors of the store stay as they are (`StoreUnavailableError` is a ConnectionError); values that are not JSON
    raise py-key-value's SerializationError.
    """

    def __init__(
        self,
        store: Store | str,
        source: Source = None,
        *,
        environment: str | None = None,
        default_collection: str = _DEFAULT_COLLECTION,
    ) -> None:
        self.store: Store
        self._resource: Store | StoreRegistry
        if isinstance(store, Store):
            if source is not None or environment is not None:
                raise ValueError("a source and an environment apply to a store's name; this is a store")
            self._resource = self.store = store
        else:
            self._resource = registry_from(source, environment)
            self.store = self._resource.require(store)
        self.default_collection = default_collection

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.store!r}>"

    # ------------------------------------------------------------------ life cycle

    async def __aenter__(self) -> Self:
        await self._resource.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._resource.__aexit__(kind, error, trace)

    async def close(self) -> None:
        """Close the store, or the registry if it was named by one; closing twice does nothing."""
        await self._resource.aclose()

    # ------------------------------------------------------------------ one key

    async def get(self, key: str, *, collection: str | None = None) -> dict[str, Any] | None:
        """Return the value, or None if the key is missing."""
        return _loaded(await self._collection(collection).get(key))

    async def ttl(self, key: str, *, collection: str | None = None) -> tuple[dict[str, Any] | None, float | None]:
        """Return the value and the seconds left, None for no end; both None if the key is missing."""
        return await _with_ttl(self._collection(collection), key)

    async def put(
        self, key: str, value: Mapping[str, Any], *, collection: str | None = None, ttl: SupportsFloat | None = None
    ) -> None:
        """Store the value, which expires after ``ttl`` seconds; with None, when the layout says."""
        await self._collection(collection).set(key, _dumped(value), _span(ttl))

    async def delete(self, key: str, *, collection: str | None = None) -> bool:
        """Remove the key; return whether it was there, False also if the backend cannot tell."""
        return bool(await self._collection(collection).delete(key))

    # ------------------------------------------------------------------ many keys

    async def get_many(self, keys: Sequence[str], *, collection: str | None = None) -> list[dict[str, Any] | None]:
        """Return the values in the order of ``keys``, None for each that is missing."""
        found = await self._collection(collection).get_many(keys)
        return [_loaded(found.get(key)) for key in keys]

    async def ttl_many(
        self, keys: Sequence[str], *, collection: str | None = None
    ) -> list[tuple[dict[str, Any] | None, float | None]]:
        """Return the result of `ttl` for each key, in their order."""
        store = self._collection(collection)
        return list(await asyncio.gather(*(_with_ttl(store, key) for key in keys)))

    async def put_many(
        self,
        keys: Sequence[str],
        values: Sequence[Mapping[str, Any]],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store several values with one expiry; of a key that comes twice the last value."""
        if len(keys) != len(values):
            raise ValueError(f"put_many needs as many values as keys; got {len(keys)} keys and {len(values)} values")
        items = {key: _dumped(value) for key, value in zip(keys, values, strict=True)}
        await self._collection(collection).set_many(items, _span(ttl))

    async def delete_many(self, keys: Sequence[str], *, collection: str | None = None) -> int:
        """Remove the keys; return how many were there, 0 also if the backend cannot tell."""
        return await self._collection(collection).delete_many(keys) or 0

    # ------------------------------------------------------------------ collections

    async def keys(self, collection: str | None = None, *, limit: int | None = None) -> list[str]:
        """Return the keys of a collection, at most ``limit``; each once, in no order."""
        return await _distinct(self._collection(collection).keys(), str, limit)

    async def collections(self, *, limit: int | None = None) -> list[str]:
        """Return the names of the collections that have a key, at most ``limit``; looks at every key of the store."""
        return await _distinct(
            self.store.walk(), lambda place: _collection_of(place[0][0]) if place[0] else None, limit
        )

    async def destroy_collection(self, collection: str) -> bool:
        """Remove every key of a collection."""
        await self._collection(collection).delete_all()
        return True

    async def destroy(self) -> bool:
        """Remove every key of the store, in all collections."""
        await self.store.delete_all()
        return True

    async def cull(self) -> None:
        """Drop expired entries; servers do it by themselves."""
        await self.store.delete_expired()

    def _collection(self, name: str | None) -> Store:
        return self.store.with_namespace(_namespace_of(name or self.default_collection))


def _namespace_of(collection: str) -> str:
    if _PLAIN.fullmatch(collection):
        return collection
    plain = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-")
    return _ESCAPED + "".join(chr(byte) if byte in plain else f"_{byte:02x}" for byte in collection.encode())


def _collection_of(namespace: str) -> str:
    if not namespace.startswith(_ESCAPED):
        return namespace
    escaped = namespace.removeprefix(_ESCAPED).encode()
    return re.sub(rb"_([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), escaped).decode(errors="replace")


async def _distinct(items: AsyncIterator[T], name: Callable[[T], str | None], limit: int | None) -> list[str]:
    """The different names of the items, at most ``limit``; those without one are left out."""
    found: set[str] = set()
    try:
        while limit is None or len(found) < limit:
            each = name(await anext(items))
            if each is not None:
                found.add(each)
    except StopAsyncIteration:
        pass
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()
    return list(found)


async def _with_ttl(store: Store, key: str) -> tuple[dict[str, Any] | None, float | None]:
    found = await store.get_with_expiry(key)
    return (None, None) if found is None else (_loaded(found[0]), found[1])


def _loaded(data: bytes | None) -> dict[str, Any] | None:
    if data is None:
        return None
    try:
        value = json.loads(data)
    except ValueError as error:
        raise DeserializationError("the value in the store is not JSON") from error
    if not isinstance(value, dict):
        raise DeserializationError("the value in the store is not a JSON object")
    return cast("dict[str, Any]", value)


def _dumped(value: Mapping[str, Any]) -> bytes:
    if not isinstance(value, Mapping):
        raise TypeError(f"a value must be a mapping, not {type(value).__name__}")
    if not all(isinstance(key, str) for key in value):
        raise TypeError("a value must have strings as keys")
    try:
        return json.dumps(dict(value), sort_keys=True).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise SerializationError(f"the value can't be written as JSON: {error}") from error


def _span(ttl: SupportsFloat | None) -> float | None:
    if ttl is None:
        return None
    try:
        span = float(ttl)
    except (TypeError, ValueError) as error:
        raise InvalidTTLError(ttl) from error
    if isinstance(ttl, bool) or not (0 < span < math.inf):
        raise InvalidTTLError(ttl)
    return span
