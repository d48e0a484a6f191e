"""The store, as applications see it: the public methods check arguments, keep the life cycle, and call the root.

A backend's store is a `StoreBase`: the `Hooks` that it implements, behind the public methods of `Store`. One that is
faster when it takes over a public method may override that too; the conformance suite holds it to the same promises.
Middleware is a `StoreWrapper`.

Longer than other modules, because the public methods of all operations are one class with the documentation of each.

Knows nothing of configuration and imports no client library.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import AsyncGenerator
from dataclasses import replace
from types import CoroutineType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from storeconf._arguments import (
    Expiry,
    Value,
    check_name,
    check_step,
    key_list,
    key_text,
    milliseconds,
    next_counter,
    survives_delete_all,
    value_bytes,
)
from storeconf._contract import OWN_ATTRIBUTES, check_store_class
from storeconf._get_or_set import Computation, computed
from storeconf._lifecycle import OPEN, STATES, resume, run_shielded
from storeconf._pace import few, in_batches
from storeconf._root import (
    CHANGES,
    TRANSLATED,
    Maker,
    RootCaller,
    RootLife,
    anext_or_none,
    described,
    hook_of,
    maker_of,
    raise_foreign,
    sign,
    taken_over,
    told,
    translated,
)
from storeconf.errors import StoreconfError, StoreError, StoreRefusedError, StoreValueError, UnsupportedOperationError
from storeconf.operations import NO_RULES, Capabilities, ExpiryRules, Hooks, PingResult

__all__ = [
    "Capabilities",
    "Expiry",
    "ExpiryRules",
    "NamespacedStore",
    "OversizeError",
    "PingResult",
    "Store",
    "StoreBase",
    "Value",
    "check_name",
    "check_step",
    "introduce_to_litestar",
    "key_text",
    "milliseconds",
    "next_counter",
    "numbered_add",
    "numbers_in_one_step",
    "run_shielded",
    "survives_delete_all",
    "taken_name",
    "value_bytes",
]

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
    from types import TracebackType

    from storeconf._get_or_set import RefreshPolicy
    from storeconf._litestar import NamespacedStore as _Litestars
    from storeconf.errors import Damage
else:
    _Litestars = object


class OversizeError(StoreValueError):
    """A key or a value has more bytes than the backend declares that it takes."""


class Store(RootCaller, _Litestars):
    """An asynchronous key/value store of bytes with an expiry per key.

    Keys are str. Values are bytes; a str is stored as UTF-8. Spans of time are seconds (int or float) or timedelta,
    rounded up to the millisecond; a span of zero or less means "already expired". An expired key does not exist.

    A store opens at its first use or with ``async with``, which nests; it is closed by the last exit. On a closed
    store every call raises `StoreClosedError` until it is opened again. Namespaces share the life cycle of their root.
    """

    capabilities: Capabilities = Capabilities()

    tolerates_outages: bool = False
    """Whether callers of `get_or_set` get their factory's value although storing it failed."""

    _runs_without_loop: ClassVar[bool] = False
    """Whether calls of exactly this class, while the store is open, may run in a thread without an event loop: they
    wait for nothing, or raise `NoLoopError` before they have done anything. Of middleware: as the wrapped store's."""

    _locks: Store | None = None
    """Where the locks of this store are, once somebody has asked for one."""

    _get_waits: ClassVar[bool] = True
    """Whether `get` may give way to the event loop."""

    on_damage: Callable[[Damage], None] | None = None
    """On a root: called for each damaged entry that a call to any of its stores finds, in the thread of that call.
    None: a warning is logged."""

    _encode: Callable[[Any], Any] = staticmethod(value_bytes)
    """Converts a caller's value to the stored one; a store that keeps objects has another one."""

    def __init__(self) -> None:
        raise TypeError("subclass storeconf.StoreBase for a backend's store, and storeconf.StoreWrapper for middleware")

    _refresh: RefreshPolicy | None = None
    """The middleware ``refresh`` of the chain."""

    _maker: Maker | None = None
    """The code that made this store, if a layout has made it."""

    _on_wrap: Callable[[Any], object] | None = None
    """Is called with each wrapper around this store, where a reload may let this store lead to another root."""

    _root: Store
    _hooks: Hooks
    """The root, as the public methods call it."""

    _name: str | None

    # ------------------------------------------------------------------ identity

    @property
    def root(self) -> Store:
        """The store that owns the resource which this one uses."""
        return self._root

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespace path: the names from the root to this store."""
        return self._path

    @property
    def namespace(self) -> str | None:
        """The namespace path joined by ``:``, or None for a root without a namespace."""
        return ":".join(self._path) or None

    @property
    def expiry_rules(self) -> ExpiryRules:
        """How the middleware of this store changes expiries."""
        return NO_RULES

    @property
    def default_expiry(self) -> float | None:
        """The seconds that an entry lives if it is stored without an expiry, without jitter; None: it never expires."""
        rules = self.expiry_rules
        return rules.max if rules.default is None else rules.default

    @property
    def name(self) -> str:
        """The name for messages: the one that the layout gives, else the class and the namespace path."""
        if self._name is not None:
            return self._name
        root = self._root
        if root is self:
            return "/".join((type(self).__name__, *self._path))
        return "/".join((root.name, *self._path[len(root.namespaces) :]))

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        if not hasattr(self, "_life"):  # the constructor raised, and a traceback may show the object
            return f"<{type(self).__name__}, not initialized>"
        return f"<{type(self).__name__} {self.name!r} {STATES[self._life.state]}>"

    def with_namespace(self, namespace: str) -> Self:
        """Return the store of a namespace below this one, on the same resource.

        ``namespace`` matches ``[A-Za-z0-9][A-Za-z0-9_-]*``, else ValueError. Bulk operations of this store reach into
        it; those of the child do not reach back.
        """
        raise NotImplementedError

    # ------------------------------------------------------------------ life cycle

    async def __aenter__(self) -> Self:  # type: ignore[override]  # for checkers that know Litestar's, which gives None
        await self._life.acquire()
        self._life.guests += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._life.guests -= 1
        await self._life.release()

    async def aclose(self) -> None:
        """Close the store now, even if others hold it open; closing a closed store does nothing.

        Its present holders still leave it later, so that a caller that opens it again meanwhile counts with them.
        """
        await run_shielded(self._life.close())

    @property
    def is_open(self) -> bool:
        """Whether the store is open; a new one is not, but opens itself at the first call."""
        return self._life.state == OPEN

    # ------------------------------------------------------------------ reading and writing

    async def get(self, key: str, renew_for: Expiry | None = None) -> bytes | None:
        """Return the value, or None when there is none or it has expired.

        ``renew_for`` gives an entry with an expiry a new one in the same step; a permanent key stays permanent. Zero or
        less ends the entry and still returns it. A server that refuses writes now still gives the value, not renewed.
        """
        key = self._checked_key("get", key)
        if renew_for is None:
            return await self._call(self._hooks.do_get(self._path, key, None), "get")
        renew = self._check("get", milliseconds, renew_for)
        try:
            return await self._change_expiry((key,), self._hooks.do_renew(self._path, key, renew), renew, "get")
        except StoreRefusedError:
            if renew <= 0:
                raise  # the value could still be read
        return await self._call(self._hooks.do_get(self._path, key, None), "get")

    async def set(self, key: str, value: Value, expires_in: Expiry | None = None, *, keep_ttl: bool = False) -> None:
        """Store the value, replacing value and expiry in one step; with None it never expires.

        ``keep_ttl`` keeps the expiry that the key has; it can't be given together with ``expires_in`` (ValueError).
        """
        key, data = self._checked_key("set", key), self._checked_value("set", value)
        if expires_in is None:
            await self._change((key,), self._hooks.do_set(self._path, key, data, None, keep_ttl), "set")
            return
        if keep_ttl:
            raise StoreValueError("give expires_in or keep_ttl, not both", store=self.name, operation="set")
        expiry = self._check("set", milliseconds, expires_in)
        if expiry > 0:
            await self._change((key,), self._hooks.do_set(self._path, key, data, expiry, False), "set")
        else:
            await self._change((key,), self._hooks.do_delete(self._path, key), "set")

    async def delete(self, key: str) -> bool | None:  # type: ignore[override]  # Litestar's returns nothing
        """Remove the key if it is there; return whether it was, or None if the backend cannot tell."""
        key = self._checked_key("delete", key)
        return await self._change((key,), self._hooks.do_delete(self._path, key), "delete")

    async def exists(self, key: str) -> bool:
        """Whether the key is there and has not expired."""
        return await self._call(self._hooks.do_exists(self._path, self._checked_key("exists", key)), "exists")

    async def expires_in(self, key: str) -> int | None:
        """Return the whole seconds, rounded up, until the key expires; -1 when it never does, None when missing."""
        left = await self._call(
            self._hooks.do_expires_in(self._path, self._checked_key("expires_in", key)), "expires_in"
        )
        return left if left is None or left < 0 else -(-left // 1000)

    async def delete_all(self) -> None:
        """Remove every key of this namespace and of those below it, and nothing else."""
        if not self._root.capabilities.lists:
            self._require_listing("delete_all")
        await self._change(None, self._hooks.do_delete_all(self._path), "delete_all")

    async def delete_expired(self) -> None:
        """Drop expired entries, in this namespace and below; nothing to do where the server does it."""
        await self._call(self._hooks.do_delete_expired(self._path), "delete_expired")

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """Iterate over the live keys of this namespace alone that begin with ``prefix``, in no order.

        A key that lives throughout the iteration comes at least once.
        """
        prefix = self._check("keys", key_text, prefix)
        if not self._root.capabilities.lists:
            self._require_listing("keys")
        with hook_of(self, "keys"):
            found = self._hooks.do_keys(self._path, prefix)
        with self._life.iterations:
            try:
                # Each step is a call of its own, so that closing waits for a step but not for the caller that iterates.
                while (key := await self._call(anext_or_none(found), "keys")) is not None:
                    yield key
            finally:
                if isinstance(found, AsyncGenerator):
                    await found.aclose()

    # ------------------------------------------------------------------ many at once

    async def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the values of those keys that are there, by key."""
        names = self._check("get_many", key_list, keys) if few(keys) else await self._many_keys("get_many", keys)
        if self._root.capabilities.max_key_size is not None:
            names = [self._checked_key("get_many", name) for name in names]
        return await self._call(self._hooks.do_get_many(self._path, names), "get_many")

    async def set_many(self, mapping: Mapping[str, Value], expires_in: Expiry | None = None) -> None:
        """Store several values with one expiry; each key is replaced atomically, the whole is not."""
        items = self._check("set_many", self._items, mapping.items()) if few(mapping) else await self._many(mapping)
        expiry = None if expires_in is None else self._check("set_many", milliseconds, expires_in)
        if expiry is None or expiry > 0:
            await self._change(items, self._hooks.do_set_many(self._path, items, expiry), "set_many")
        else:
            await self._change(items, self._hooks.do_delete_many(self._path, list(items)), "set_many")

    def _items(self, items: Iterable[tuple[str, Value]]) -> dict[str, bytes]:
        limits = self._root.capabilities
        if limits.max_key_size is None and limits.max_value_size is None:
            return {key_text(key): self._encode(value) for key, value in items}
        return {self._checked_key("set_many", key): self._checked_value("set_many", value) for key, value in items}

    async def _many(self, mapping: Mapping[str, Value]) -> dict[str, bytes]:
        """As `_items`, and lets others run meanwhile."""
        items: dict[str, bytes] = {}
        await in_batches(list(mapping.items()), lambda batch: items.update(self._check("set_many", self._items, batch)))
        return items

    async def delete_many(self, keys: Iterable[str]) -> int | None:
        """Remove those keys that are there; return how many there were, or None if the backend cannot tell."""
        names = self._check("delete_many", key_list, keys) if few(keys) else await self._many_keys("delete_many", keys)
        if self._root.capabilities.max_key_size is not None:
            names = [self._checked_key("delete_many", name) for name in names]
        return await self._change(names, self._hooks.do_delete_many(self._path, names), "delete_many")

    # ------------------------------------------------------------------ atomic operations

    async def add(self, key: str, value: Value, expires_in: Expiry | None = None) -> bool:
        """Store the value only if the key is not there; whether it was stored. Atomic."""
        self._require("add")
        key, data = self._checked_key("add", key), self._checked_value("add", value)
        expiry = None if expires_in is None else self._check("add", milliseconds, expires_in)
        return await self._change((key,), self._hooks.do_add(self._path, key, data, expiry), "add")

    async def _add_numbered(self, key: str, value: bytes, expires_in: Expiry, counter: str) -> int | None:
        """As ``add``; but if the key is missing, raise a counter, append its number to the value, and return it.

        All in one step; returns None if the key is there.
        """
        key, counter = self._checked_key("add", key), self._checked_key("add", counter)
        work = self._root._do_add_numbered(self._path, key, value, milliseconds(expires_in), counter)  # noqa: SLF001  # of this class
        return await self._change((key, counter), work, "add")

    @property
    def _numbers_in_one_step(self) -> bool:
        """Whether a root has that hook for the running event loop."""
        return False

    async def _do_add_numbered(
        self, path: tuple[str, ...], key: str, value: bytes, expiry: int, counter: str
    ) -> int | None:
        """The hook for `_add_numbered`, of roots only."""
        raise NotImplementedError

    async def touch(self, key: str, expires_in: Expiry | None) -> bool:
        """Give the key a new expiry, None for never; whether the key was there. Atomic."""
        self._require("touch")
        key = self._checked_key("touch", key)
        expiry = None if expires_in is None else self._check("touch", milliseconds, expires_in)
        return await self._change_expiry((key,), self._hooks.do_touch(self._path, key, expiry), expiry, "touch")

    async def pop(self, key: str) -> bytes | None:
        """Remove the key and return its value, or None. Atomic: only one caller gets it."""
        self._require("pop")
        key = self._checked_key("pop", key)
        return await self._change((key,), self._hooks.do_pop(self._path, key), "pop")

    async def increment(self, key: str, by: int = 1, expires_in: Expiry | None = None) -> int:
        """Add ``by`` to the counter and return the new number; a missing key counts as 0. Atomic.

        The value is a signed 64-bit decimal in ASCII; any other value, and overflow, is StoreValueError and changes
        nothing. ``expires_in`` applies only if the call creates the key.
        """
        self._require("increment")
        by, key = self._check("increment", check_step, by), self._checked_key("increment", key)
        expiry = None if expires_in is None else self._check("increment", milliseconds, expires_in)
        return await self._change((key,), self._hooks.do_increment(self._path, key, by, expiry), "increment")

    async def get_or_set(
        self,
        key: str,
        factory: Callable[[], Value | Awaitable[Value]],
        expires_in: Expiry | None = None,
        *,
        background: bool = False,
    ) -> bytes:
        """Return the value; if there is none, run ``factory`` (sync or async), store its result and return that.

        Concurrent callers in one event loop share one run, in a task of its own: a cancelled caller leaves, the last
        one to leave cancels the run. An error of the factory goes to all callers, and nothing is stored. Nor is it if
        the key was changed through this process meanwhile; if another process was first, callers get its value.
        ``background`` says that the factory may outlive its callers: with the middleware ``refresh`` they get the value
        that is there while it runs.

        Raises StoreDeadlockError in a factory that would wait for its own key.
        """
        if expires_in is not None:
            self._check("get_or_set", milliseconds, expires_in)
        if self._refresh is not None:
            key = self._checked_key("get_or_set", key)
            return await self._refresh.get_or_set(self, key, factory, expires_in, background)
        looking = self.get(key)
        if self._get_waits and looking.__class__ is CoroutineType:
            try:
                waiting_for = looking.send(None)
            except StopIteration as done:
                value: bytes | None = done.value
            else:
                # A caller that waits here may soon wait for the factory, too.
                value = await self._life.flights.looking(self._path, str.__str__(key), resume(looking, waiting_for))
        else:
            value = await looking
        return await self._computed(key, factory, expires_in) if value is None else value

    async def _computed(
        self, key: str, factory: Callable[[], Value | Awaitable[Value]], expires_in: Expiry | None
    ) -> bytes:
        key = self._checked_key("get_or_set", key)
        return await computed(Computation(self, key, factory, expires_in))

    # ------------------------------------------------------------------ for middleware and tools

    async def get_with_expiry(self, key: str) -> tuple[bytes, float | None] | None:
        """Return the value and the seconds left, to the millisecond, in one step; None if the key is missing.

        The seconds are None if the key never expires.
        """
        found = await self._call(
            self._hooks.do_get_with_expiry(self._path, self._checked_key("get_with_expiry", key)), "get_with_expiry"
        )
        if found is None:
            return None
        value, left = found
        return value, None if left is None else left / 1000

    async def compare_and_set(
        self,
        key: str,
        old: Value | None,
        new: Value | None,
        expires_in: Expiry | None = None,
        *,
        keep_ttl: bool = False,
    ) -> bool:
        """Compare and set: if the value is ``old`` (None: missing), make it ``new`` (None: delete). Atomic.

        Returns whether it did. The value expires after ``expires_in`` (None: never), or with ``keep_ttl`` when the old
        one would have.
        """
        self._require("compare_and_set")
        key = self._checked_key("compare_and_set", key)
        if keep_ttl and expires_in is not None:
            raise StoreValueError("give expires_in or keep_ttl, not both", store=self.name, operation="compare_and_set")
        before = None if old is None else self._check("compare_and_set", self._encode, old)
        after = None if new is None else self._checked_value("compare_and_set", new)
        span = None if expires_in is None else self._check("compare_and_set", milliseconds, expires_in)
        if span is not None and span <= 0:
            after, span = None, None
        return await self._change(
            (key,), self._hooks.do_compare_and_set(self._path, key, before, after, span, keep_ttl), "compare_and_set"
        )

    async def walk(self) -> AsyncGenerator[tuple[tuple[str, ...], str]]:
        """Iterate over the live keys of this namespace and of those below it: (names from here, key), in no order.

        As the backend knows them: no middleware has a say. Those that live throughout come at least once. The keys of
        storeconf's own namespaces, whose names begin with ``-``, are left out. UnsupportedOperationError where the
        backend can't tell which namespaces there are.
        """
        self._require_listing("walk")
        with hook_of(self, "walk"):
            found = self._hooks.do_walk(self._path)
        with self._life.iterations:
            try:
                while (place := await self._call(anext_or_none(found), "walk")) is not None:
                    if not any(name.startswith("-") for name in place[0]):
                        yield place
            finally:
                if isinstance(found, AsyncGenerator):
                    await found.aclose()

    def raw_key(self, key: str) -> str | None:
        """Return the backend's name for the key (a server's key, a file's path), or None where nothing else can see it.

        Does no I/O; the key need not be there.
        """
        key = self._checked_key("raw_key", key)
        with hook_of(self, "raw_key"):
            return self._hooks.do_raw_key(self._path, key)

    def new_client(self) -> Any:
        """Return a client of the driver for the server of this store, for features that stores lack, such as pub/sub.

        It has the layout's address, topology, database, credentials and TLS, also those from files that change, and no
        timeout for commands, because some block. It knows nothing of namespaces: `raw_key` returns the server's name of
        a key. The caller closes it.

        Raises UnsupportedOperationError for a store that is not on a server, or that was made of a client.
        """
        return self._root._new_client(blocking=False)  # noqa: SLF001  # of this class

    def _new_client(self, blocking: bool) -> Any:
        raise UnsupportedOperationError(
            f"store {self.name!r} ({type(self).__name__}) is not on a server, so it has no client",
            store=self.name,
            operation="new_client",
        )

    async def ping(self) -> PingResult:
        """Do one real round trip. Never raises: the result contains a failure."""
        start = time.perf_counter()
        try:
            server = await self._call(self._hooks.do_ping(self._path), "ping")
        except Exception as error:  # noqa: BLE001  # the result contains every failure
            return PingResult(ok=False, error=described(error))
        return PingResult(ok=True, latency=time.perf_counter() - start, server=server)

    def _checked_key(self, operation: str, key: str) -> str:
        """Return a key that the backend takes."""
        try:
            key = key_text(key)
            most = self._root.capabilities.max_key_size
            if most is not None and (size := len("::".join(filter(None, (self.namespace, key))).encode())) > most:
                raise OversizeError(
                    f"the key has {size} bytes with its namespace, and store {self.name!r} takes {most}"
                )
        except StoreError as error:
            sign(error, self, operation)
            raise
        return key

    def _checked_value(self, operation: str, value: Any) -> Any:
        """Return a value as the backend takes it."""
        try:
            data = self._encode(value)
            most = self._root.capabilities.max_value_size
            if most is not None and isinstance(data, bytes) and len(data) > most:
                raise OversizeError(f"the value has {len(data)} bytes, and store {self.name!r} takes {most}")
        except StoreError as error:
            sign(error, self, operation)
            raise
        return data

    def _require_listing(self, operation: str) -> None:
        """Refuse operations that the backend can't do because it does not know its keys."""
        root = self._hooks
        if getattr(type(root), f"do_{operation}") is getattr(Hooks, f"do_{operation}"):
            why = "tell which namespaces it has" if self._root.capabilities.lists else "list its keys"
            raise UnsupportedOperationError(
                f"store {self.name!r} ({type(root).__name__}) can't {why}, so it does not offer {operation}()",
                store=self.name,
                operation=operation,
            )

    def _require(self, operation: str) -> None:
        if operation not in self._root.capabilities.atomic:
            raise UnsupportedOperationError(
                f"store {self.name!r} ({type(self._root).__name__}) does not offer {operation}()",
                store=self.name,
                operation=operation,
            )


def numbered_add(store: Store) -> Callable[[str, bytes, Expiry, str], Coroutine[Any, Any, int | None]]:
    """For locks: the `add` of a store without middleware that numbers its entries; see `numbers_in_one_step`."""
    return store._add_numbered  # noqa: SLF001  # of this module


def numbers_in_one_step(store: Store) -> bool:
    """Whether the backend does `numbered_add`, as far as that is known."""
    return store.root._numbers_in_one_step  # noqa: SLF001  # of this module


NamespacedStore = Store
"""Every store has namespaces, so this is another name for `Store`."""


# ---------------------------------------------------------------- the base class of backends' stores


def introduce_to_litestar() -> None:
    """Make every store one of Litestar's for ``isinstance``, if the application has imported Litestar's by now."""
    base = sys.modules.get("litestar.stores.base")
    if base is not None:
        base.NamespacedStore.register(Store)


_FREE: Final = frozenset(
    {
        "_get_waits",
        "capabilities",
        "default_expiry",
        "expiry_rules",
        "notifies",
        "on_damage",
        "synchronous_operations",
        "tolerates_outages",
        "warn_if_left_open",
    }
)
"""The attributes that a backend's store may set as it likes."""


def taken_name(store: Store) -> str | None:
    """The name of an attribute that storeconf keeps for itself, and that a store's own code has set; or None."""
    life, root, hooks, path = (getattr(store, name, None) for name in ("_life", "_root", "_hooks", "_path"))
    expected = {
        "_life": isinstance(life, RootLife),
        "_root": isinstance(root, StoreBase),
        "_hooks": isinstance(hooks, StoreBase),
        "_path": isinstance(path, tuple) and all(isinstance(name, str) for name in path),
    }
    return next((name for name, right in expected.items() if not right), None)


def _has_set(store: Store, name: str) -> bool:
    # Not by ``__dict__``, the use of which makes an object slower, nor by a class's own ``__getattr__``.
    try:
        object.__getattribute__(store, name)
    except AttributeError:
        return False
    return True


class StoreBase(Store, Hooks):
    """A store that owns a resource; its namespaces are handles of the same class. Implement the ``do_*`` methods."""

    synchronous_operations: ClassVar[frozenset[str]] = frozenset()
    """Operations of exactly this class that end without giving way to the event loop: a time limit can pass them by."""

    notifies: ClassVar[frozenset[str]] = frozenset()
    """Public operations that exactly this class takes over and that tell of changes; others are made to."""

    warn_if_left_open: ClassVar[bool] = True
    """Whether a store that was opened by a call alone deserves a ResourceWarning when it is left open: false where
    nothing needs to be given back. One that somebody entered and never left deserves it anyway."""

    capabilities: Capabilities
    _root: StoreBase

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_store_class(cls, Store, _FREE)
        own = vars(cls)
        if cls.do_update is not Hooks.do_update:
            cls.capabilities = replace(cls.capabilities, atomic=Capabilities.ALL_ATOMIC)
        notifies = own.get("notifies", frozenset())
        for name, method in taken_over(cls, TRANSLATED):
            if name == "get":
                cls._get_waits = "get" not in own.get("synchronous_operations", ())
            own_method = translated(name, method)
            setattr(cls, name, told(name, own_method) if name in CHANGES - notifies else own_method)

    def __init__(self) -> None:
        if not type(self).__module__.startswith("storeconf."):
            taken = next((name for name in OWN_ATTRIBUTES if _has_set(self, name)), None)
            if taken is not None:
                raise TypeError(f"{type(self).__name__} sets an attribute {taken!r}, a name that storeconf uses itself")
        introduce_to_litestar()
        self._become(RootLife(self), self, (), None)

    def _become(self, life: RootLife, root: StoreBase, path: tuple[str, ...], name: str | None) -> None:
        self._life, self._root, self._hooks, self._path, self._name = life, root, root, path, name

    @property
    def root(self) -> StoreBase:
        """The store that owns the resource which this one uses."""
        return self._root

    def with_namespace(self, namespace: str) -> Self:
        """Return the store of a namespace below this one, on the same resource; see `Store.with_namespace`."""
        child = type(self).__new__(type(self))
        name = None if self._name is None else f"{self._name}/{namespace}"
        child._become(self._life, self._root, (*self._path, check_name(namespace)), name)  # noqa: SLF001  # of this class
        if self.capabilities is not type(self).capabilities:  # one store's own
            child.capabilities = self.capabilities
        try:
            child.do_attach(self)
        except StoreconfError:
            raise
        except Exception as error:  # noqa: BLE001  # a backend's own code may fail in any way
            raise_foreign(error, self, "with_namespace", maker_of(self))
        return child

    def __del__(self) -> None:
        if getattr(self, "_root", None) is not self or self._life.state != OPEN:
            return
        if self.warn_if_left_open or self._life.guests > 0:
            warnings.warn(f"{self!r} was left open", ResourceWarning, stacklevel=2, source=self)
