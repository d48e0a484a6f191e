"""The operations of a store, each in one row: its target, its effect, and its result where nothing is found.

Everything that depends on the kind of an operation follows from its row: whether it may be repeated, whether a timeout
leaves its outcome unknown, how near caches and single flight learn of it, how the middleware treats it, and which
capabilities there are. CONTRIBUTING.md describes how to add an operation.

The descriptions of a store (capabilities, rules for expiries, the outcome of a ping) are here too.

The hooks, ``do_*`` methods on ``(path, key)``, are the half of a store that a backend implements. The path is that of a
namespace as a tuple of names, the key a str; values are bytes, and times whole milliseconds. They are always called on
the root, also for the handle of a namespace, and only while the store is open.

Longer than other modules, because the rows and the promises of the hooks are read together.

Imports nothing of storeconf but the arguments of stores, errors, and the pace of long loops.
"""

from __future__ import annotations

import time
from copy import copy
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self, TypeAlias

from storeconf._arguments import milliseconds, next_counter
from storeconf._pace import Pace
from storeconf.errors import StoreTimeoutError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence

__all__ = [
    "DELETE",
    "KEEP",
    "Capabilities",
    "EntryChange",
    "Effect",
    "ExpiryRules",
    "Hooks",
    "LISTING",
    "METHODS",
    "NO_RULES",
    "OPERATIONS",
    "Operation",
    "PingResult",
    "TABLE",
    "Target",
    "limits_of",
    "missing_in",
    "named",
    "read_each",
]

Target = Literal["key", "keys", "tree"]
"""One key; several keys, given as the first argument; everything at and below a namespace."""

Effect = Literal["read", "renew", "write", "remove", "take", "create", "count", "sweep"]
"""The change that a call makes:

- ``read``: nothing;
- ``renew``: no value, only an expiry;
- ``write``, ``remove``: the same when it is done twice;
- ``take``: removes the value that it returns, so that a second call finds nothing;
- ``create``: depends on the value that is there;
- ``count``: more each time;
- ``sweep``: only entries that have expired already.
"""

Result = Literal["value", "entry", "values", "number", "span"]
"""The kind of result that a call returns, where that matters:

- ``value``: a value or None;
- ``entry``: a value and the seconds that it has left, or None;
- ``values``: values by key;
- ``number``: of how many keys it is true;
- ``span``: the seconds that an entry has left.

The results of the parts of a bulk call are put together: ``values`` are united, numbers add up.
"""

_REPEATABLE: Final[frozenset[Effect]] = frozenset({"read", "renew", "write", "remove", "sweep"})

_NEVER_A_MISS: Final = object()

_MADE_OF_PARTS: Final[Mapping[Result | None, type]] = {"values": dict, "number": int}


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the table.

    ``method`` is the public method; it differs from ``name`` where one method is two operations. ``optional``: a store
    that does not declare it raises UnsupportedOperationError. ``atomic``: its name is one of `Capabilities.atomic`.
    ``stores``: the call passes values; to one key, as the argument before the expiry. ``expiry``: the place of the
    expiry among its arguments. ``finds``: its result tells whether the key was there, which makes a hit rate. ``miss``:
    its result where there is nothing, if an unavailable backend may read as a store that holds nothing. ``decide``:
    makes the step for `Hooks.do_update` from the arguments of its hook.
    """

    name: str
    target: Target
    effect: Effect
    method: str = ""
    optional: bool = False
    atomic: bool = False
    stores: bool = False
    expiry: int | None = None
    result: Result | None = None
    finds: bool = False
    miss: Any = _NEVER_A_MISS
    decide: Callable[..., Decide] | None = None

    def __post_init__(self) -> None:
        if not self.method:
            object.__setattr__(self, "method", self.name)

    @property
    def gives_values(self) -> bool:
        """Whether the call returns stored data."""
        return self.result in ("value", "entry", "values")

    @property
    def changes(self) -> bool:
        """Whether callers may see another value or another expiry afterwards."""
        return self.effect not in ("read", "sweep")

    @property
    def has_outcome(self) -> bool:
        """Whether it matters to callers if a call that failed took effect."""
        return self.effect != "read"

    @property
    def idempotent(self) -> bool:
        """Whether doing it twice is the same as doing it once; but see `repeatable`."""
        return self.effect in _REPEATABLE

    @property
    def may_miss(self) -> bool:
        """Whether an unavailable backend may read as a store that holds nothing."""
        return self.miss is not _NEVER_A_MISS

    @property
    def falls_back(self) -> bool:
        """Whether another store may take the call: calls that may miss, except those for whole namespaces."""
        return self.may_miss and self.target != "tree"

    def keys(self, arguments: Sequence[Any]) -> Collection[str]:
        """Return the keys that a call with these arguments names."""
        if self.target == "tree":
            return ()
        keys: Collection[str] = arguments[0] if self.target == "keys" else arguments[:1]
        return keys

    def span(self, arguments: Sequence[Any]) -> Any:
        """Return the expiry that a call with these arguments gives, or None."""
        return None if self.expiry is None or len(arguments) <= self.expiry else arguments[self.expiry]

    def stored(self, arguments: Sequence[Any]) -> Any:
        """Return the value that a call for one key with these arguments stores, or None if it removes the entry."""
        assert self.expiry is not None
        return arguments[self.expiry - 1]

    def ends(self, arguments: Sequence[Any]) -> bool:
        """Whether a call with these arguments writes or renews for zero seconds or less, which removes the entry."""
        if self.effect not in ("write", "renew"):
            return False
        span = self.span(arguments)
        return span is not None and milliseconds(span) <= 0

    def repeatable(self, arguments: Sequence[Any]) -> bool:
        """Whether repeating a call with these arguments loses nothing, even if the first one took effect."""
        return self.idempotent and not (self.gives_values and self.ends(arguments))

    def missed(self, error: BaseException) -> Any:
        """Return a caller's result instead of this error: a miss, or that of the reachable part of a bulk call."""
        return copy(self.miss) if (reached := self.reached(error)) is None else reached

    # The parts of a bulk call that are done. Middleware that repeats the rest of a call needs no more than these three.

    def reached(self, error: BaseException) -> Any:
        """Return the result of the reachable part of a bulk call that failed, empty or zero if it gave nothing.

        None for calls whose results can't be put together.
        """
        kind = _MADE_OF_PARTS.get(self.result) if self.target == "keys" else None
        if kind is None:
            return None
        partial = getattr(error, "partial", None)
        return partial if isinstance(partial, kind) else kind()

    def united(self, first: Any, second: Any) -> Any:
        """Return the result of a call that `reached` ``first``, and of which the rest has given ``second``."""
        if first is None or second is None:  # the backend can't tell
            return second
        return first | second if self.result == "values" else first + second

    def rest(self, arguments: tuple[Any, ...], reached: Any) -> tuple[Any, ...]:
        """Return the arguments for the rest of the call: for all keys, if the `reached` part does not name them."""
        if not reached or self.result != "values":
            return arguments
        given = arguments[0]
        left = [key for key in given if key not in reached]
        return ({key: given[key] for key in left} if self.stores else left, *arguments[1:])


# ---------------------------------------------------------------- changes of an entry that was read


class EntryChange(Enum):
    """The decision that a step of `Hooks.do_update` returns instead of a new entry."""

    KEEP = "keep"
    DELETE = "delete"


KEEP: Final = EntryChange.KEEP
"""Leave the entry as it is; if it is missing, store none."""

DELETE: Final = EntryChange.DELETE
"""Remove the entry, if it is there."""

Entry: TypeAlias = "tuple[bytes, int | None]"
"""A value, and when it expires: in milliseconds since 1970, None for never."""

Step: TypeAlias = "Callable[[bytes | None, int | None], Entry | EntryChange]"
"""Gets the present value and expiry, or None and None, and returns the new ones. It may be called again."""

Decide: TypeAlias = "Callable[[bytes | None, int | None], tuple[Entry | EntryChange, Any]]"
"""As a step, but returns the result of the operation too."""


def _ends(expiry: int | None) -> int | None:
    return None if expiry is None else time.time_ns() // 1_000_000 + expiry


def _add(new: bytes, expiry: int | None) -> Decide:
    def decide(value: bytes | None, expires_at: int | None) -> tuple[Entry | EntryChange, bool]:
        if value is not None:
            return KEEP, False
        return KEEP if expiry is not None and expiry <= 0 else (new, _ends(expiry)), True

    return decide


def _renew(expiry: int) -> Decide:
    def decide(value: bytes | None, expires_at: int | None) -> tuple[Entry | EntryChange, bytes | None]:
        if value is None or expires_at is None:
            return KEEP, value
        return DELETE if expiry <= 0 else (value, _ends(expiry)), value

    return decide


def _touch(expiry: int | None) -> Decide:
    def decide(value: bytes | None, expires_at: int | None) -> tuple[Entry | EntryChange, bool]:
        if value is None:
            return KEEP, False
        return DELETE if expiry is not None and expiry <= 0 else (value, _ends(expiry)), True

    return decide


def _pop() -> Decide:
    return lambda value, expires_at: (DELETE, value)


def _increment(by: int, expiry: int | None) -> Decide:
    def decide(value: bytes | None, expires_at: int | None) -> tuple[Entry | EntryChange, int]:
        number = next_counter(value, by)
        if value is not None:
            return (b"%d" % number, expires_at), number
        return KEEP if expiry is not None and expiry <= 0 else (b"%d" % number, _ends(expiry)), number

    return decide


def _compare_and_set(old: bytes | None, new: bytes | None, expiry: int | None, keep_ttl: bool) -> Decide:
    def decide(value: bytes | None, expires_at: int | None) -> tuple[Entry | EntryChange, bool]:
        if value != old:
            return KEEP, False
        return DELETE if new is None else (new, expires_at if keep_ttl else _ends(expiry)), True

    return decide


TABLE: Final[tuple[Operation, ...]] = (
    Operation("get", "key", "read", result="value", finds=True, miss=None),
    Operation(
        "renew", "key", "renew", "get", atomic=True, expiry=1, result="value", finds=True, miss=None, decide=_renew
    ),
    Operation("get_many", "keys", "read", result="values", miss={}),
    Operation("get_with_expiry", "key", "read", result="entry", finds=True, miss=None),
    Operation("exists", "key", "read", finds=True, miss=False),
    Operation("expires_in", "key", "read", result="span", miss=None),
    Operation("keys", "tree", "read"),
    Operation("ping", "tree", "read"),
    Operation("set", "key", "write", stores=True, expiry=2, miss=None),
    Operation("set_many", "keys", "write", stores=True, expiry=1, miss=None),
    Operation("delete", "key", "remove", miss=False),
    Operation("delete_many", "keys", "remove", result="number", miss=0),
    Operation("delete_all", "tree", "remove"),
    Operation("delete_expired", "tree", "sweep", miss=None),
    Operation("add", "key", "create", optional=True, atomic=True, stores=True, expiry=2, decide=_add),
    Operation("touch", "key", "renew", optional=True, atomic=True, expiry=1, finds=True, miss=False, decide=_touch),
    Operation("pop", "key", "take", optional=True, atomic=True, result="value", finds=True, miss=None, decide=_pop),
    Operation("increment", "key", "count", optional=True, atomic=True, expiry=2, decide=_increment),
    Operation(
        "compare_and_set", "key", "create", optional=True, atomic=True, stores=True, expiry=3, decide=_compare_and_set
    ),
)

OPERATIONS: Final[Mapping[str, Operation]] = {each.name: each for each in TABLE}
"""The rows by the name that guards get: ``renew`` is a ``get`` with ``renew_for``."""

METHODS: Final[Mapping[str, Operation]] = {each.method: each for each in TABLE}
"""The rows by public method; of the two of ``get``, the one that changes something."""


def named(choice: Callable[[Operation], bool]) -> frozenset[str]:
    """Return the names of the rows that are chosen."""
    return frozenset(each.name for each in TABLE if choice(each))


# ---------------------------------------------------------------- descriptions of a store


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The capabilities of a kind of store, declared by its author and verified by the conformance suite.

    ``persistent``: values survive the process. ``shared``: other processes see the same values, each as soon as it is
    written. ``resolution``: seconds by which an expiry may be late. ``atomic``: those of ``add``, ``touch``, ``pop``,
    ``increment``, ``compare_and_set`` and ``renew`` (``get`` with ``renew_for``) that are atomic; any of the first five
    that is absent raises `UnsupportedOperationError`. ``objects``: the store keeps Python objects, not only bytes.
    ``lists``: ``keys``, ``delete_all`` and ``walk`` exist. ``max_key_size``: the most bytes of a key in UTF-8, its
    namespace path included as in ``shop:cache::key``; ``max_value_size``: the most bytes of a value; a longer one is
    StoreValueError, None: the store sets no limit.
    """

    persistent: bool = False
    shared: bool = False
    resolution: float = 0.001
    atomic: frozenset[str] = frozenset()
    objects: bool = False
    lists: bool = True
    max_key_size: int | None = None
    max_value_size: int | None = None

    ALL_ATOMIC: ClassVar[frozenset[str]] = named(lambda operation: operation.atomic)


LISTING: Final = ("delete_all", "keys", "walk")
"""The operations that a store lacks if it can't list its keys."""


def missing_in(capabilities: Capabilities) -> list[str]:
    """The operations that a store does not offer."""
    atomic = [row.name for row in TABLE if row.optional and row.name not in capabilities.atomic]
    return atomic if capabilities.lists else [*atomic, *LISTING]


def limits_of(capabilities: Capabilities) -> list[str]:
    """The largest keys and values, in words, where they are limited."""
    limits = (("keys", capabilities.max_key_size), ("values", capabilities.max_value_size))
    return [f"{what} up to {most} bytes" for what, most in limits if most is not None]


@dataclass(frozen=True, slots=True)
class ExpiryRules:
    """How a store's middleware changes expiries; in seconds, None where it does not.

    ``default``: the expiry of an entry that is stored without one. ``max``: the longest expiry of any entry; one that
    would have none gets it. ``renewal``: the expiry that reading gives an entry that has one.
    """

    default: float | None = None
    max: float | None = None
    renewal: float | None = None


NO_RULES = ExpiryRules()


@dataclass(frozen=True, slots=True)
class PingResult:
    """The outcome of one real round trip to a store.

    ``latency`` is in seconds and None when the store did not answer; ``error`` says why, without secrets; ``server``
    describes the server that answered (kind, version, topology, TLS), where there is one.
    """

    ok: bool
    latency: float | None = None
    error: str | None = None
    server: str | None = None


# ---------------------------------------------------------------- the hooks of backends


class Hooks:
    """The methods that `Store` calls, with checked arguments."""

    async def do_open(self) -> None:
        """Take the resource: make directories, prepare clients. A server that is down must not fail it.

        If it raises, or is cancelled, it has released everything that it acquired; `do_close` is not called then.
        """

    async def do_close(self) -> None:
        """Give the resource back. Called once for each `do_open` that succeeded; the store is closed even if it raises.

        No call is under way any more, except those that outlasted the grace: let them fail with a `StoreError`.
        """

    def do_forget(self) -> None:
        """In a forked child: let go of connections, threads and locks of the parent without touching them."""

    def do_attach(self, parent: Self) -> None:
        """Prepare a namespace's handle; the root and the path are set already. Called once for each handle."""

    async def do_get(self, path: tuple[str, ...], key: str, renew: int | None) -> bytes | None:
        """The value; with ``renew`` also a new expiry, in milliseconds, if the entry has one (zero or less: end it)."""
        raise NotImplementedError

    async def do_set(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        """Replace value and expiry; ``expiry`` is milliseconds above zero, or None for never."""
        raise NotImplementedError

    async def do_delete(self, path: tuple[str, ...], key: str) -> bool | None:
        """Remove the key if it is there and return whether it was; None if the backend cannot tell."""
        raise NotImplementedError

    async def do_exists(self, path: tuple[str, ...], key: str) -> bool:
        """Whether the key is there and not expired."""
        raise NotImplementedError

    async def do_expires_in(self, path: tuple[str, ...], key: str) -> int | None:
        """Milliseconds left, -1 for never, None when missing."""
        raise NotImplementedError

    async def do_delete_all(self, path: tuple[str, ...]) -> None:
        """Remove all keys whose path begins with ``path``, name by name, except where `survives_delete_all` is true."""
        raise NotImplementedError

    def do_keys(self, path: tuple[str, ...], prefix: str) -> AsyncIterator[str]:
        """The live keys of exactly this path that begin with ``prefix``."""
        raise NotImplementedError

    async def do_delete_expired(self, path: tuple[str, ...]) -> None:
        """Drop expired entries at and below ``path``; leave it where the backend does that by itself."""

    async def do_get_many(self, path: tuple[str, ...], keys: list[str]) -> dict[str, bytes]:
        """Override where the backend can answer several keys in one round trip."""
        found, pace = {}, Pace()
        for key in keys:
            value = await self.do_get(path, key, None)
            if value is not None:
                found[key] = value
            if pace.due():
                await pace.rest()
        return found

    async def do_set_many(self, path: tuple[str, ...], items: dict[str, bytes], expiry: int | None) -> None:
        """Override where the backend can set several keys in one round trip."""
        pace = Pace()
        for key, value in items.items():
            await self.do_set(path, key, value, expiry, False)
            if pace.due():
                await pace.rest()

    async def do_delete_many(self, path: tuple[str, ...], keys: list[str]) -> int | None:
        """Override if the backend can delete several keys in one round trip. Return how many there were, or None."""
        deleted: int | None = 0
        pace = Pace()
        for key in keys:
            there = await self.do_delete(path, key)
            deleted = None if deleted is None or there is None else deleted + there
            if pace.due():
                await pace.rest()
        return deleted

    async def do_get_with_expiry(self, path: tuple[str, ...], key: str) -> tuple[bytes, int | None] | None:
        """Override if the backend can read the value and the milliseconds left (None: never expires) in one step."""
        value = await self.do_get(path, key, None)
        left = await self.do_expires_in(path, key)
        return None if value is None or left is None else (value, None if left < 0 else left)

    async def do_update(self, path: tuple[str, ...], key: str, step: Step) -> None:
        """Optional: read the entry, call ``step`` with it, and store the result, all in one atomic step.

        ``step(value, expires_at)`` gets None and None for an entry that is missing or has expired. It returns the new
        pair, or ``DELETE`` or ``KEEP``. It does not wait, may be called again if another caller was faster, and its
        errors go to the caller: then nothing has changed. A store with this hook offers ``add``, ``touch``, ``pop``,
        ``increment``, ``compare_and_set`` and renewal, each of which may still have a hook of its own.
        """
        raise NotImplementedError

    async def _updated(self, operation: str, path: tuple[str, ...], key: str, *arguments: Any) -> Any:
        """Do an operation by `do_update`."""
        decide, result = OPERATIONS[operation].decide, None
        assert decide is not None
        decided = decide(*arguments)

        def step(value: bytes | None, expires_at: int | None) -> Entry | EntryChange:
            nonlocal result
            change, result = decided(value, expires_at)
            return change

        await self.do_update(path, key, step)
        return result

    async def do_renew(self, path: tuple[str, ...], key: str, expiry: int) -> bytes | None:
        """Optional: as `do_get` with this renewal, which it calls where there is no `do_update`."""
        if type(self).do_update is Hooks.do_update:
            return await self.do_get(path, key, expiry)
        return await self._updated("renew", path, key, expiry)  # type: ignore[no-any-return]  # as the table says

    async def do_add(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None) -> bool:
        """Optional (``add``): store only if missing; ``expiry`` may be zero or less: then only tell."""
        return await self._updated("add", path, key, value, expiry)  # type: ignore[no-any-return]  # as the table says

    async def do_touch(self, path: tuple[str, ...], key: str, expiry: int | None) -> bool:
        """Optional (``touch``): a new expiry, None for never, zero or less to end it."""
        return await self._updated("touch", path, key, expiry)  # type: ignore[no-any-return]  # as the table says

    async def do_pop(self, path: tuple[str, ...], key: str) -> bytes | None:
        """Optional (``pop``): remove and return."""
        return await self._updated("pop", path, key)  # type: ignore[no-any-return]  # as the table says

    async def do_increment(self, path: tuple[str, ...], key: str, by: int, expiry: int | None) -> int:
        """Optional (``increment``): see `next_counter`; ``expiry`` applies on creation, and may be zero or less."""
        return await self._updated("increment", path, key, by, expiry)  # type: ignore[no-any-return]  # as the table says

    async def do_compare_and_set(
        self,
        path: tuple[str, ...],
        key: str,
        old: bytes | None,
        new: bytes | None,
        expiry: int | None,
        keep_ttl: bool,
    ) -> bool:
        """Optional (``compare_and_set``): if the value is ``old`` (None: missing), make it ``new`` (None: delete)."""
        return await self._updated("compare_and_set", path, key, old, new, expiry, keep_ttl)  # type: ignore[no-any-return]  # as the table says

    def do_walk(self, path: tuple[str, ...]) -> AsyncIterator[tuple[tuple[str, ...], str]]:
        """Optional: the live keys at and below ``path``, each with the names that follow it.

        Without it `Store.walk` raises UnsupportedOperationError, and tools copy only namespaces that a layout lists.
        """
        raise NotImplementedError

    def do_raw_key(self, path: tuple[str, ...], key: str) -> str | None:
        """Override where other tools can look a key up: what they have to ask for. Does no I/O."""
        return None

    async def do_ping(self, path: tuple[str, ...]) -> str | None:
        """One real round trip; describe the server where there is one."""
        await self.do_exists(path, "storeconf-ping")
        return None


# ---------------------------------------------------------------- many keys, one by one


_AT_ONCE = 250
"""Keys that are read at once where each is read by a call of its own."""


async def read_each(
    keys: Sequence[str],
    read: Callable[[str], Awaitable[bytes | None]],
    read_many: Callable[[Sequence[str]], Awaitable[dict[str, bytes]]],
) -> dict[str, bytes]:
    """Return the values that ``read`` finds for these keys, each of which occurs once.

    If the backend is unavailable for some of them, its error carries the values of the others as ``partial``. Keys that
    were not asked for by then are read by ``read_many``, so that no further one waits for the backend.
    """
    import asyncio  # here, as in `storeconf._pace`

    from storeconf._lifecycle import require_asyncio

    require_asyncio()
    found: dict[str, bytes] = {}
    unavailable: StoreUnavailableError | StoreTimeoutError | None = None
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        for key, result in zip(some, await asyncio.gather(*map(read, some), return_exceptions=True), strict=True):
            if isinstance(result, StoreUnavailableError | StoreTimeoutError):
                unavailable = unavailable or result
            elif isinstance(result, BaseException):
                raise result
            elif result is not None:
                found[key] = result
        if unavailable is not None:
            rest = keys[start + _AT_ONCE :]
            try:
                found |= await read_many(rest) if rest else {}
            except (StoreUnavailableError, StoreTimeoutError) as error:
                found |= error.partial if isinstance(error.partial, dict) else {}
            unavailable.partial = found or None
            raise unavailable
    return found
