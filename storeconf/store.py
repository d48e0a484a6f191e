"""The store: what applications call, and the half of it that a backend implements.

`Store` has two faces. Applications use the public methods, which check arguments, keep the life cycle and know about
namespaces. A backend subclasses it and implements the ``do_*`` methods on ``(path, key)``: the namespace path as a
tuple of names and the key as a str, with values as bytes and times as whole milliseconds. They are always called on
the root, whatever namespace the application holds, and only while the store is open. A backend that is faster when it
takes over a public method may override that instead; the conformance suite holds it to the same promises.

Knows nothing of configuration and imports no client library.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import re
import time
import warnings
from collections.abc import AsyncGenerator
from concurrent.futures import Future as ThreadFuture
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from storeconf import _litestar
from storeconf._lifecycle import CLOSING, NEW, OPEN, LifeCycle, uninterrupted
from storeconf.errors import (
    StoreClosedError,
    StoreError,
    StoreTimeoutError,
    StoreValueError,
    UnsupportedOperationError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
    from types import TracebackType

    from storeconf._litestar import NamespacedStore as _Litestars
else:
    _Litestars = object

__all__ = [
    "Capabilities",
    "Expiry",
    "NamespacedStore",
    "PingResult",
    "Store",
    "Value",
    "check_name",
    "key_text",
    "milliseconds",
    "parse_integer",
    "uninterrupted",
    "value_bytes",
]

Expiry = int | float | timedelta
"""A span of time: seconds as int or float, or a timedelta."""

Value = str | bytes | bytearray | memoryview
"""What a store accepts as a value; a str is stored as UTF-8."""

T = TypeVar("T")

A = TypeVar("A")

CLOSE_GRACE = 5.0
"""Seconds that calls under way get to finish when their store closes."""

CLOSE_LIMIT = 10.0
"""Seconds that a backend gets after that to give its resource back."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z")
_INTEGER = re.compile(rb"(?:0|-?[1-9][0-9]{0,18})\Z")
_MAX_MILLISECONDS = 1 << 62
_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a kind of store can do, declared by its author and held to by the conformance suite.

    ``persistent``: values survive the process. ``shared``: other processes see the same values. ``resolution``:
    seconds by which an expiry may be late. ``atomic``: those of ``add``, ``touch``, ``pop``, ``increment``,
    ``replace`` and ``renew`` (``get`` with ``renew_for``) that are atomic; any of the first five that is absent
    raises `UnsupportedOperationError`. ``objects``: the store keeps Python objects as they are, not only bytes.
    """

    persistent: bool = False
    shared: bool = False
    resolution: float = 0.001
    atomic: frozenset[str] = frozenset()
    objects: bool = False

    ALL_ATOMIC: ClassVar[frozenset[str]] = frozenset({"add", "touch", "pop", "increment", "replace", "renew"})


@dataclass(frozen=True, slots=True)
class PingResult:
    """The outcome of one real round trip to a store.

    ``latency`` is in seconds and None when the store did not answer; ``error`` says why, without secrets; ``server``
    describes what answered (kind, version, topology, TLS), where there is a server.
    """

    ok: bool
    latency: float | None = None
    error: str | None = None
    server: str | None = None


def check_name(name: str) -> str:
    """Return ``name`` if it can name a namespace, else raise ValueError."""
    if not isinstance(name, str):
        raise TypeError(f"a namespace name must be a str, not {type(name).__name__}")
    if _NAME.match(name) is None:
        raise ValueError(
            f"{name!r} can't name a namespace: use letters, digits, '_' and '-', beginning with a letter or digit"
        )
    return name


def key_text(key: str) -> str:
    """Return ``key`` as a plain str if UTF-8 can encode it; else StoreValueError, and TypeError if it is no str."""
    if key.__class__ is not str:
        if not isinstance(key, str):
            raise TypeError(f"a key must be a str, not {type(key).__name__}")
        key = str.__str__(key)  # a subclass, an enumeration's say, may hash and format itself as something else
    if not key.isascii():
        try:
            key.encode()
        except UnicodeEncodeError as error:
            raise StoreValueError("a key must be encodable as UTF-8; this one holds lone surrogates") from error
    return key


def value_bytes(value: Value) -> bytes:
    """Return ``value`` as bytes; a str becomes UTF-8. Anything but str and bytes-like is a TypeError."""
    if value.__class__ is bytes:
        return value
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise StoreValueError("a str value must be encodable as UTF-8; this one holds lone surrogates") from error
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"a value must be str or bytes-like, not {type(value).__name__}")


def milliseconds(span: Expiry) -> int:
    """Return a span of time in whole milliseconds, rounded up; zero or less means already over.

    Raises TypeError for anything but int, float and timedelta (a bool is no number of seconds), and StoreValueError
    for NaN, infinity, and spans that no backend can hold.
    """
    if isinstance(span, timedelta):
        result = -(-span // timedelta(milliseconds=1))
    elif isinstance(span, bool) or not isinstance(span, int | float):
        raise TypeError(f"an expiry must be int, float or timedelta seconds, not {type(span).__name__}")
    elif isinstance(span, int):
        result = span * 1000
    elif not math.isfinite(span):
        raise StoreValueError(f"an expiry must be finite, not {span}")
    else:
        # The subtraction forgives what binary floats add: 0.07 s are 70 ms, not 71.
        result = max(1, math.ceil(span * 1000 - 1e-6)) if span > 0 else 0
    if result > _MAX_MILLISECONDS:
        raise StoreValueError("an expiry must be less than 146 million years")
    return result


def parse_integer(value: bytes) -> int:
    """Return the integer that a counter holds: canonical signed 64-bit decimal in ASCII, else StoreValueError."""
    if _INTEGER.match(value) is not None:
        number = int(value)
        if _INT64_MIN <= number <= _INT64_MAX:
            return number
    raise StoreValueError("the value is not a signed 64-bit decimal integer")


class _Flight:
    """One run of a factory that several callers wait for."""

    __slots__ = ("ended", "task", "waiters")

    def __init__(self, task: asyncio.Task[bytes]) -> None:
        self.task = task
        self.waiters = 0
        self.ended = False  # by a closing store whose grace is over


class Store(LifeCycle, _Litestars):
    """An asynchronous key/value store of bytes with an expiry per key.

    Keys are str. Values are bytes; a str is stored as UTF-8. Spans of time are seconds (int or float) or timedelta,
    rounded up to the millisecond; a span of zero or less means "already expired". An expired key does not exist.

    A store opens at its first use or with ``async with``, which nests; it is closed by the last exit. On a closed
    store every call raises `StoreClosedError` until it is opened again. Namespaces share the life cycle of their root.
    """

    capabilities: Capabilities = Capabilities()

    never_wait: ClassVar[frozenset[str]] = frozenset()
    """Operations of exactly this class that end without giving way to the event loop: a time limit can pass them by."""

    owns_resources: ClassVar[bool] = True
    """Whether a store left open deserves a ResourceWarning: false where there is nothing but memory."""

    _encode: Callable[[Any], Any] = staticmethod(value_bytes)
    """What makes a caller's value the stored one; a store that keeps objects has another one."""

    def __init__(self) -> None:
        super().__init__()
        _litestar.introduce(Store)
        self._root: Store = self
        self._path: tuple[str, ...] = ()
        self._name: str | None = None

    def _reset(self) -> None:
        super()._reset()
        # Several threads count without a lock: CPython switches threads neither within += nor within -=.
        self._calls = 0
        self._idle: ThreadFuture[None] | None = None
        self._inside: set[asyncio.Task[Any] | None] = set()  # tasks whose further calls closing waits for
        self._flights: dict[tuple[asyncio.AbstractEventLoop, tuple[str, ...], str], _Flight] = {}

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
    def name(self) -> str:
        """The name for messages: the one that the layout gives, else the class and the namespace path."""
        if self._name is not None:
            return self._name
        return "/".join((self._root._name or type(self._root).__name__, *self._path))

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        state = ("new", "open", "closing", "closed")[self._root._state]
        return f"<{type(self).__name__} {self.name!r} {state}>"

    def with_namespace(self, namespace: str) -> Self:
        """Return the store of a namespace below this one, on the same resource.

        ``namespace`` matches ``[A-Za-z0-9][A-Za-z0-9_-]*``, else ValueError. Bulk operations of this store reach into
        it; those of the child do not reach back.
        """
        child = type(self).__new__(type(self))
        child._root = self._root
        child._path = (*self._path, check_name(namespace))
        child._name = None if self._name is None else f"{self._name}/{namespace}"
        if "capabilities" in self.__dict__:  # one store's own, where the class's are not all that is to say
            child.capabilities = self.capabilities
        child.do_attach(self)
        return child

    def do_attach(self, parent: Self) -> None:
        """Prepare a namespace's handle; the root and the path are set already. Called once for each handle."""

    # ------------------------------------------------------------------ life cycle

    async def __aenter__(self) -> Self:  # type: ignore[override]
        await self._root._acquire()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._root._release()

    async def aclose(self) -> None:
        """Close the store now, whoever holds it open; closing a closed store does nothing.

        Those who hold it still leave it later, so that one who opens it again meanwhile counts with them.
        """
        await uninterrupted(self._root._close())

    @property
    def is_open(self) -> bool:
        """Whether the store is open; a new one is not, but opens itself at the first call."""
        return self._root._state == OPEN

    async def _begin(self) -> None:
        try:
            await self.do_open()
        except StoreError as error:
            self._sign(error, "open")
            raise

    async def _end(self) -> None:
        try:
            try:
                await self._drain()
            finally:
                await self._give_back()
        except StoreError as error:
            self._sign(error, "close")
            raise

    def _forget(self) -> None:
        self.do_forget()

    async def _drain(self) -> None:
        """Wait for the calls under way, from whatever loop, then end the factories that are still running."""
        idle = self._idle = ThreadFuture()
        try:
            if self._calls > 0:
                await asyncio.wait([asyncio.wrap_future(idle)], timeout=CLOSE_GRACE)
        finally:
            self._idle = None
            for (loop, _, _), flight in list(self._flights.items()):
                flight.ended = True
                with suppress(RuntimeError):  # a loop that is closed runs nothing any more
                    loop.call_soon_threadsafe(flight.task.cancel)

    async def _give_back(self) -> None:
        limit = asyncio.timeout(CLOSE_LIMIT)
        try:
            async with limit:
                await self.do_close()
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise StoreTimeoutError(f"closing store {self.name!r} was given up after {CLOSE_LIMIT:g} s") from error

    async def _ready(self) -> None:
        """What a call does that finds the root not open: open a new one, refuse on a closed one."""
        root = self._root
        while root._state != OPEN:
            if root._state == NEW:
                await root._open(reopen=False)
            elif root._state == CLOSING and asyncio.current_task() in root._inside:
                return
            else:
                raise StoreClosedError(
                    f"store {self.name!r} is closed; open it, or its registry, again", store=self.name
                )

    async def _call(self, work: Coroutine[Any, Any, T], operation: str | None = None) -> T:
        """Run one of the root's ``do_*`` coroutines as a call under way, which closing waits for.

        ``operation`` is what errors call it, by default the name of the hook.
        """
        root = self._root
        root._calls += 1  # before the look at the state, so that one who closes from another thread sees either
        try:
            if root._state != OPEN:
                await self._ready()
            return await work
        except StoreError as error:
            self._sign(error, operation or getattr(work, "__name__", "").removeprefix("do_"))
            raise
        finally:
            work.close()
            root._calls -= 1
            if root._idle is not None:
                root._leave()

    def _leave(self) -> None:
        """Tell the one who closes that no call is under way any more."""
        with self._mutex:
            if self._calls <= 0 and self._idle is not None and not self._idle.done():
                self._idle.set_result(None)

    def _sign(self, error: StoreError, operation: str) -> None:
        """Say on an error which store and which operation it is about, unless it says so already."""
        if error.store is None:
            error.store = self.name
        if error.operation is None:
            error.operation = operation

    def _check(self, operation: str, check: Callable[[A], T], argument: A) -> T:
        try:
            return check(argument)
        except StoreError as error:
            self._sign(error, operation)
            raise

    def __del__(self) -> None:
        if self.__dict__.get("_root") is self and self._state == OPEN and self.owns_resources:
            warnings.warn(f"{self!r} was left open", ResourceWarning, stacklevel=2, source=self)

    # ------------------------------------------------------------------ reading and writing

    async def get(self, key: str, renew_for: Expiry | None = None) -> bytes | None:
        """Return the value, or None when there is none or it has expired.

        ``renew_for`` gives what has an expiry a new one in the same step; a permanent key stays permanent. Zero or
        less ends the entry and still returns it.
        """
        key = self._check("get", key_text, key)
        renew = None if renew_for is None else self._check("get", milliseconds, renew_for)
        return await self._call(self._root.do_get(self._path, key, renew))

    async def set(self, key: str, value: Value, expires_in: Expiry | None = None, *, keep_ttl: bool = False) -> None:
        """Store the value, replacing value and expiry in one step; None means for ever.

        ``keep_ttl`` keeps the expiry that the key has; it can't be given together with ``expires_in`` (ValueError).
        """
        key, data = self._check("set", key_text, key), self._check("set", self._encode, value)
        if expires_in is None:
            await self._call(self._root.do_set(self._path, key, data, None, keep_ttl))
            return
        if keep_ttl:
            raise StoreValueError("give expires_in or keep_ttl, not both", store=self.name, operation="set")
        expiry = self._check("set", milliseconds, expires_in)
        if expiry > 0:
            await self._call(self._root.do_set(self._path, key, data, expiry, False))
        else:
            await self._call(self._root.do_delete(self._path, key), "set")

    async def delete(self, key: str) -> None:
        """Remove the key; a missing one is no error."""
        await self._call(self._root.do_delete(self._path, self._check("delete", key_text, key)))

    async def exists(self, key: str) -> bool:
        """Whether the key is there and has not expired."""
        return await self._call(self._root.do_exists(self._path, self._check("exists", key_text, key)))

    async def expires_in(self, key: str) -> int | None:
        """Return the whole seconds, rounded up, until the key expires; -1 when it never does, None when missing."""
        left = await self._call(self._root.do_expires_in(self._path, self._check("expires_in", key_text, key)))
        return left if left is None or left < 0 else -(-left // 1000)

    async def delete_all(self) -> None:
        """Remove every key of this namespace and of those below it, and nothing else."""
        await self._call(self._root.do_delete_all(self._path))

    async def delete_expired(self) -> None:
        """Drop what has expired, in this namespace and below; nothing to do where the server does it."""
        await self._call(self._root.do_delete_expired(self._path))

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """Iterate over the live keys of this namespace alone that begin with ``prefix``, in no order.

        A key that lives throughout the iteration comes at least once.
        """
        found = self._root.do_keys(self._path, self._check("keys", key_text, prefix))
        try:
            # Each step is a call of its own, so that closing waits for a step but not for the one who iterates.
            while (key := await self._call(_next(found), "keys")) is not None:
                yield key
        finally:
            if isinstance(found, AsyncGenerator):
                await found.aclose()

    # ------------------------------------------------------------------ many at once

    async def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the values of those keys that are there, by key."""
        return await self._call(self._root.do_get_many(self._path, self._check("get_many", _key_list, keys)))

    async def set_many(self, mapping: Mapping[str, Value], expires_in: Expiry | None = None) -> None:
        """Store several values with one expiry; each key is replaced atomically, the whole is not."""
        items = self._check("set_many", self._items, mapping)
        expiry = None if expires_in is None else self._check("set_many", milliseconds, expires_in)
        if expiry is None or expiry > 0:
            await self._call(self._root.do_set_many(self._path, items, expiry))
        else:
            await self._call(self._root.do_delete_many(self._path, list(items)), "set_many")

    def _items(self, mapping: Mapping[str, Value]) -> dict[str, bytes]:
        return {key_text(key): self._encode(value) for key, value in mapping.items()}

    async def delete_many(self, keys: Iterable[str]) -> None:
        """Remove several keys; missing ones are no error."""
        await self._call(self._root.do_delete_many(self._path, self._check("delete_many", _key_list, keys)))

    # ------------------------------------------------------------------ atomic operations

    async def add(self, key: str, value: Value, expires_in: Expiry | None = None) -> bool:
        """Store the value only if the key is not there; whether it was stored. Atomic."""
        self._require("add")
        key, data = self._check("add", key_text, key), self._check("add", self._encode, value)
        expiry = None if expires_in is None else self._check("add", milliseconds, expires_in)
        return await self._call(self._root.do_add(self._path, key, data, expiry))

    async def touch(self, key: str, expires_in: Expiry | None) -> bool:
        """Give the key a new expiry, None for never; whether the key was there. Atomic."""
        self._require("touch")
        key = self._check("touch", key_text, key)
        expiry = None if expires_in is None else self._check("touch", milliseconds, expires_in)
        return await self._call(self._root.do_touch(self._path, key, expiry))

    async def pop(self, key: str) -> bytes | None:
        """Remove the key and return its value, or None. Atomic: only one caller gets it."""
        self._require("pop")
        return await self._call(self._root.do_pop(self._path, self._check("pop", key_text, key)))

    async def increment(self, key: str, by: int = 1, expires_in: Expiry | None = None) -> int:
        """Add ``by`` to the counter and return the new number; a missing key counts as 0. Atomic.

        The value is a signed 64-bit decimal in ASCII; any other value, and overflow, is StoreValueError and changes
        nothing. ``expires_in`` applies only if the call creates the key.
        """
        self._require("increment")
        if not isinstance(by, int) or isinstance(by, bool):
            raise TypeError(f"by must be an int, not {type(by).__name__}")
        if not _INT64_MIN <= by <= _INT64_MAX:
            raise StoreValueError("by must fit in 64 bits", store=self.name, operation="increment")
        key = self._check("increment", key_text, key)
        expiry = None if expires_in is None else self._check("increment", milliseconds, expires_in)
        return await self._call(self._root.do_increment(self._path, key, by, expiry))

    async def get_or_set(
        self, key: str, factory: Callable[[], Value | Awaitable[Value]], expires_in: Expiry | None = None
    ) -> bytes:
        """Return the value; when there is none, run ``factory`` (sync or async), store its result and return that.

        Concurrent callers in one event loop share one run, in a task of its own: a cancelled caller leaves, the last
        one to leave cancels the run. An error of the factory goes to all callers, and nothing is stored.
        """
        if expires_in is not None:
            self._check("get_or_set", milliseconds, expires_in)
        value = await self.get(key)
        if value is not None:
            return value
        loop = asyncio.get_running_loop()
        flights = self._root._flights
        slot = (loop, self._path, key)
        flight = flights.get(slot)
        if flight is None:
            flight = flights[slot] = _Flight(loop.create_task(self._produce(key, factory, expires_in)))
            flight.task.add_done_callback(lambda task: _land(flights, slot, task))
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if flight.ended and caller is not None and not caller.cancelling():
                raise StoreClosedError(
                    f"store {self.name!r} was closed before the factory was done",
                    store=self.name,
                    operation="get_or_set",
                ) from None
            raise
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.task.done():
                if flights.get(slot) is flight:
                    del flights[slot]
                flight.task.cancel()

    async def _produce(
        self, key: str, factory: Callable[[], Value | Awaitable[Value]], expires_in: Expiry | None
    ) -> bytes:
        root, task = self._root, asyncio.current_task()
        root._calls += 1
        root._inside.add(task)
        try:
            # A run that ended between the caller's miss and now has stored the value already.
            value = await self.get(key)
            if value is not None:
                return value
            made = factory()
            if inspect.isawaitable(made):
                made = await made
            data = made if self.capabilities.objects else self._check("get_or_set", value_bytes, made)
            await self.set(key, data, expires_in)
            return data  # type: ignore[return-value]  # where objects are kept, the caller gets back what it made
        finally:
            root._inside.discard(task)
            root._calls -= 1
            if root._idle is not None:
                root._leave()

    # ------------------------------------------------------------------ for middleware and tools

    async def get_with_expiry(self, key: str) -> tuple[bytes, int | None] | None:
        """Return the value and the milliseconds it has left (None: for ever) in one step, or None when missing."""
        return await self._call(
            self._root.do_get_with_expiry(self._path, self._check("get_with_expiry", key_text, key))
        )

    async def replace(
        self,
        key: str,
        old: bytes | None,
        new: bytes | None,
        expires_in: Expiry | None = None,
        *,
        keep_ttl: bool = False,
    ) -> bool:
        """Compare and set: if the value is ``old`` (None: missing), make it ``new`` (None: delete). Atomic.

        Whether it was so. The expiry becomes ``expires_in`` (None: for ever), or stays with ``keep_ttl``.
        """
        self._require("replace")
        key = self._check("replace", key_text, key)
        if keep_ttl and expires_in is not None:
            raise StoreValueError("give expires_in or keep_ttl, not both", store=self.name, operation="replace")
        expiry = None if expires_in is None else self._check("replace", milliseconds, expires_in)
        if expiry is not None and expiry <= 0:
            new, expiry = None, None
        return await self._call(self._root.do_replace(self._path, key, old, new, expiry, keep_ttl))

    def raw_key(self, key: str) -> str | None:
        """Return what the backend calls the key (a server's key, a file's path), or None where nothing else can see it.

        Does no I/O; the key need not be there.
        """
        return self._root.do_raw_key(self._path, self._check("raw_key", key_text, key))

    async def ping(self) -> PingResult:
        """Do one real round trip. Never raises: a failure is told in the result."""
        start = time.perf_counter()
        try:
            server = await self._call(self._root.do_ping(self._path))
        except Exception as error:  # noqa: BLE001  # whatever it is, the result tells it
            return PingResult(ok=False, error=f"{type(error).__name__}: {error}")
        return PingResult(ok=True, latency=time.perf_counter() - start, server=server)

    def _require(self, operation: str) -> None:
        if operation not in self._root.capabilities.atomic:
            raise UnsupportedOperationError(
                f"store {self.name!r} ({type(self._root).__name__}) does not offer {operation}()",
                store=self.name,
                operation=operation,
            )

    # ------------------------------------------------------------------ the backend's half

    async def do_open(self) -> None:
        """Take the resource: make directories, prepare clients. A server that is down must not fail it.

        If it raises, or is cancelled, it has given back what it took; `do_close` is not called then.
        """

    async def do_close(self) -> None:
        """Give the resource back. Called once for each `do_open` that succeeded; the store is closed even if it raises.

        No call is under way any more, except those that outlasted the grace: let them fail with a `StoreError`.
        """

    def do_forget(self) -> None:
        """In a forked child: let go of connections, threads and locks of the parent without touching them."""

    async def do_get(self, path: tuple[str, ...], key: str, renew: int | None) -> bytes | None:
        """The value; with ``renew`` also a new expiry, in milliseconds, for what has one (zero or less: end it)."""
        raise NotImplementedError

    async def do_set(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        """Replace value and expiry; ``expiry`` is milliseconds above zero, or None for never."""
        raise NotImplementedError

    async def do_delete(self, path: tuple[str, ...], key: str) -> None:
        """Remove the key if it is there."""
        raise NotImplementedError

    async def do_exists(self, path: tuple[str, ...], key: str) -> bool:
        """Whether the key is there and not expired."""
        raise NotImplementedError

    async def do_expires_in(self, path: tuple[str, ...], key: str) -> int | None:
        """Milliseconds left, -1 for never, None when missing."""
        raise NotImplementedError

    async def do_delete_all(self, path: tuple[str, ...]) -> None:
        """Remove all keys whose path begins with ``path``, name by name."""
        raise NotImplementedError

    def do_keys(self, path: tuple[str, ...], prefix: str) -> AsyncIterator[str]:
        """The live keys of exactly this path that begin with ``prefix``."""
        raise NotImplementedError

    async def do_delete_expired(self, path: tuple[str, ...]) -> None:
        """Drop expired entries at and below ``path``; leave it where the backend does that by itself."""

    async def do_get_many(self, path: tuple[str, ...], keys: list[str]) -> dict[str, bytes]:
        """Override where the backend can answer several keys in one round trip."""
        found = {}
        for key in keys:
            value = await self.do_get(path, key, None)
            if value is not None:
                found[key] = value
        return found

    async def do_set_many(self, path: tuple[str, ...], items: dict[str, bytes], expiry: int | None) -> None:
        """Override where the backend can set several keys in one round trip."""
        for key, value in items.items():
            await self.do_set(path, key, value, expiry, False)

    async def do_delete_many(self, path: tuple[str, ...], keys: list[str]) -> None:
        """Override where the backend can delete several keys in one round trip."""
        for key in keys:
            await self.do_delete(path, key)

    async def do_get_with_expiry(self, path: tuple[str, ...], key: str) -> tuple[bytes, int | None] | None:
        """Override where the backend can read value and expiry in one step."""
        value = await self.do_get(path, key, None)
        left = await self.do_expires_in(path, key)
        return None if value is None or left is None else (value, None if left < 0 else left)

    async def do_add(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None) -> bool:
        """Optional (``add``): store only if missing; ``expiry`` may be zero or less: then only tell."""
        raise NotImplementedError

    async def do_touch(self, path: tuple[str, ...], key: str, expiry: int | None) -> bool:
        """Optional (``touch``): a new expiry, None for never, zero or less to end it."""
        raise NotImplementedError

    async def do_pop(self, path: tuple[str, ...], key: str) -> bytes | None:
        """Optional (``pop``): remove and return."""
        raise NotImplementedError

    async def do_increment(self, path: tuple[str, ...], key: str, by: int, expiry: int | None) -> int:
        """Optional (``increment``): see `parse_integer`; ``expiry`` applies on creation, and may be zero or less."""
        raise NotImplementedError

    async def do_replace(
        self,
        path: tuple[str, ...],
        key: str,
        old: bytes | None,
        new: bytes | None,
        expiry: int | None,
        keep_ttl: bool,
    ) -> bool:
        """Optional (``replace``): compare and set."""
        raise NotImplementedError

    def do_raw_key(self, path: tuple[str, ...], key: str) -> str | None:
        """Override where other tools can look a key up: what they have to ask for. Does no I/O."""
        return None

    async def do_ping(self, path: tuple[str, ...]) -> str | None:
        """One real round trip; describe the server where there is one."""
        await self.do_exists(path, "storeconf-ping")
        return None


NamespacedStore = Store
"""Every store has namespaces, so this is another name for `Store`."""


def _key_list(keys: Iterable[str]) -> list[str]:
    if isinstance(keys, str | bytes):
        raise TypeError("give an iterable of keys, not one key")
    return [key_text(key) for key in keys]


async def _next(keys: AsyncIterator[str]) -> str | None:
    return await anext(keys, None)


def _land(flights: dict[Any, _Flight], slot: object, task: asyncio.Task[bytes]) -> None:
    flight = flights.get(slot)
    if flight is not None and flight.task is task:
        del flights[slot]
    if not task.cancelled():
        task.exception()  # every waiter has its own copy; without waiters nobody needs it
