"""The operations of a store, each in one row: what it works on, what it does, and what finding nothing looks like.

Whatever depends on the kind of an operation follows from its row: whether it may be repeated, whether a timeout leaves
its outcome unknown, what near caches and single flight learn of it, what the middleware does around it, and which
capabilities there are. CONTRIBUTING.md describes how to add an operation.

What a store tells of itself (capabilities, rules for expiries, the outcome of a ping) is here too.

Imports nothing of storeconf but what stores take as arguments.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from storeconf._arguments import milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

__all__ = [
    "Capabilities",
    "Effect",
    "ExpiryRules",
    "METHODS",
    "NO_RULES",
    "OPERATIONS",
    "Operation",
    "PingResult",
    "TABLE",
    "Target",
    "named",
]

Target = Literal["key", "keys", "tree"]
"""One key; several keys, given as the first argument; everything at and below a namespace."""

Effect = Literal["read", "renew", "write", "remove", "take", "create", "count", "sweep"]
"""What a call changes:

- ``read``: nothing;
- ``renew``: no value, only an expiry;
- ``write``, ``remove``: the same when it is done twice;
- ``take``: removes what it returns, so that a second call finds nothing;
- ``create``: depends on the value that is there;
- ``count``: more each time;
- ``sweep``: only what has expired already.
"""

_REPEATABLE: Final[frozenset[Effect]] = frozenset({"read", "renew", "write", "remove", "sweep"})

_NEVER_A_MISS: Final = object()


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the table.

    ``method`` is the public method; it differs from ``name`` where one method is two operations. ``optional``: a store
    that does not declare it raises UnsupportedOperationError. ``atomic``: its name is one of `Capabilities.atomic`.
    ``value``: whether the call passes values ``in``, or gives them ``out``. ``finds``: its result tells whether the key
    was there, which makes a hit rate. ``miss``: its result where there is nothing, if an unavailable backend may read
    as a store that holds nothing.
    """

    name: str
    target: Target
    effect: Effect
    method: str = ""
    optional: bool = False
    atomic: bool = False
    value: Literal["in", "out"] | None = None
    finds: bool = False
    miss: Any = _NEVER_A_MISS

    def __post_init__(self) -> None:
        if not self.method:
            object.__setattr__(self, "method", self.name)

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
        """Whether another store may take the call: what may miss, except for what concerns whole namespaces."""
        return self.may_miss and self.target != "tree"

    def keys(self, arguments: Sequence[Any]) -> Collection[str]:
        """Return the keys that a call with these arguments names."""
        if self.target == "tree":
            return ()
        keys: Collection[str] = arguments[0] if self.target == "keys" else arguments[:1]
        return keys

    def ends(self, arguments: Sequence[Any]) -> bool:
        """Whether a call with these arguments is a renewal by zero seconds or less, which removes the entry."""
        return self.effect == "renew" and arguments[1] is not None and milliseconds(arguments[1]) <= 0

    def repeatable(self, arguments: Sequence[Any]) -> bool:
        """Whether repeating a call with these arguments loses nothing, even if the first one took effect."""
        return self.idempotent and not (self.value == "out" and self.ends(arguments))

    def missed(self, partial: object = None) -> Any:
        """Return what a caller gets who finds nothing, or what the reachable part of a bulk call gave."""
        return partial if self.target == "keys" and type(partial) is type(self.miss) else copy(self.miss)


TABLE: Final[tuple[Operation, ...]] = (
    Operation("get", "key", "read", value="out", finds=True, miss=None),
    Operation("renew", "key", "renew", method="get", atomic=True, value="out", finds=True, miss=None),
    Operation("get_many", "keys", "read", value="out", miss={}),
    Operation("get_with_expiry", "key", "read", value="out", finds=True, miss=None),
    Operation("exists", "key", "read", finds=True, miss=False),
    Operation("expires_in", "key", "read", miss=None),
    Operation("keys", "tree", "read"),
    Operation("ping", "tree", "read"),
    Operation("set", "key", "write", value="in", miss=None),
    Operation("set_many", "keys", "write", value="in", miss=None),
    Operation("delete", "key", "remove", miss=False),
    Operation("delete_many", "keys", "remove", miss=0),
    Operation("delete_all", "tree", "remove"),
    Operation("delete_expired", "tree", "sweep", miss=None),
    Operation("add", "key", "create", optional=True, atomic=True, value="in"),
    Operation("touch", "key", "renew", optional=True, atomic=True, finds=True, miss=False),
    Operation("pop", "key", "take", optional=True, atomic=True, value="out", finds=True, miss=None),
    Operation("increment", "key", "count", optional=True, atomic=True),
    Operation("compare_and_set", "key", "create", optional=True, atomic=True, value="in"),
)

OPERATIONS: Final[Mapping[str, Operation]] = {each.name: each for each in TABLE}
"""The rows by the name that guards get: ``renew`` is a ``get`` with ``renew_for``."""

METHODS: Final[Mapping[str, Operation]] = {each.method: each for each in TABLE}
"""The rows by public method; of the two of ``get``, the one that changes something."""


def named(choice: Callable[[Operation], bool]) -> frozenset[str]:
    """Return the names of the rows that are chosen."""
    return frozenset(each.name for each in TABLE if choice(each))


# ---------------------------------------------------------------- what a store tells of itself


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a kind of store can do, declared by its author and held to by the conformance suite.

    ``persistent``: values survive the process. ``shared``: other processes see the same values, each as soon as it is
    written. ``resolution``: seconds by which an expiry may be late. ``atomic``: those of ``add``, ``touch``, ``pop``,
    ``increment``, ``compare_and_set`` and ``renew`` (``get`` with ``renew_for``) that are atomic; any of the first five
    that is absent raises `UnsupportedOperationError`. ``objects``: the store keeps Python objects, not only bytes.
    """

    persistent: bool = False
    shared: bool = False
    resolution: float = 0.001
    atomic: frozenset[str] = frozenset()
    objects: bool = False

    ALL_ATOMIC: ClassVar[frozenset[str]] = named(lambda operation: operation.atomic)


@dataclass(frozen=True, slots=True)
class ExpiryRules:
    """How a store's middleware changes expiries; in seconds, None where it does not.

    ``default``: the expiry of an entry that is stored without one. ``max``: the longest expiry of any entry; what would
    have none gets it. ``renewal``: the expiry that reading gives an entry that has one.
    """

    default: float | None = None
    max: float | None = None
    renewal: float | None = None


NO_RULES = ExpiryRules()


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
