"""``mirror``: calls for a share of the keys are repeated on another store, to try that store out.

The calls to be repeated belong to a pair of roots: see `storeconf.middleware._repeated`. Counts belong to a
link: one ``mirror`` in the chain of one store, with the namespaces made from it. ``docs/decisions/0016-mirror.md`` has
the reasons.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

from pydantic import Field

from storeconf._pace import Pace, batches
from storeconf.errors import StoreValueError, UnsupportedOperationError
from storeconf.middleware import GuardedStore, pass_through, without_policies
from storeconf.middleware._repeated import CallHere, RepeatedCall, pair_of
from storeconf.operations import OPERATIONS, Operation, named
from storeconf.plugin import BuildContext, Middleware, StoreName
from storeconf.store import Store, value_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

    from storeconf.sync import SyncStore

__all__ = ["Latencies", "Mirror", "MirrorReport", "mirror_report"]

LOG_EVERY = 10.0
"""Seconds between two log lines of one link."""


class Mirror(Middleware):
    """Repeat a share of the calls on another store, to try it out."""

    kind: ClassVar[str] = "mirror"
    shorthand_field: ClassVar[str | None] = "store"
    requires_bytes: ClassVar[bool] = True

    store: StoreName = Field(
        description="The store on which calls are repeated in the background, those of a namespace in the same "
        "namespace there. Callers get nothing of it: no answer, no error, no wait.",
        examples=["candidate"],
    )
    percent: float = Field(
        default=100,
        ge=0,
        le=100,
        description="The share of the keys whose calls are repeated, the same keys in every process. A key in which a "
        "call had to be dropped is left out from then on.",
        examples=[10],
    )

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        """Return a store that is mirrored."""
        other = without_policies(context.store(self.store))
        for name in context.names_below(None):
            other = other.with_namespace(name)
        return MirrorStore(inner, other, LinkCounts(self, other.name, context))


# ---------------------------------------------------------------------- counts


@dataclass(frozen=True, slots=True)
class Latencies:
    """How long calls took, in seconds; ``p50`` and ``p99`` to a quarter of their values."""

    count: int
    mean: float
    p50: float
    p99: float
    max: float


class _Timing:
    """Durations, in buckets of which four double."""

    def __init__(self) -> None:
        self.count: int = 0
        self.total: float = 0.0
        self.max: float = 0.0
        self._buckets: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        self.count += 1
        self.total += seconds
        self.max = max(self.max, seconds)
        bucket = math.ceil(4 * math.log2(max(seconds, 1e-9)))
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def summary(self) -> Latencies:
        return Latencies(self.count, self.total / max(1, self.count), self._part(0.5), self._part(0.99), self.max)

    def _part(self, part: float) -> float:
        left = part * self.count
        for bucket, count in sorted(self._buckets.items()):
            left -= count
            if left <= 0:
                return min(self.max, math.pow(2.0, bucket / 4))
        return self.max


@dataclass(frozen=True, slots=True)
class MirrorReport:
    """The outcome of the calls that ``mirror`` repeats, in this process since the store was made.

    ``calls`` were repeated; of these, ``compared`` were compared, ``differences`` had another answer, and ``errors``
    failed. ``dropped`` calls had no room, or the store was closed first; ``left_out`` were not repeated because a call
    for their key had been dropped, or because the other store can't have their namespace. ``pending`` calls wait for
    their turn, on all mirrors of one store to another. ``latencies`` are those of the calls here, ``mirror_latencies``
    those of the same calls on the other store.
    """

    calls: int
    compared: int
    differences: int
    errors: int
    dropped: int
    left_out: int
    pending: int
    latencies: Latencies
    mirror_latencies: Latencies


def mirror_report(store: Store | SyncStore) -> MirrorReport | None:
    """Return the counts of the ``mirror`` in the chain of a store, None if there is none."""
    inside: Any = store
    while inside is not None and not isinstance(inside, MirrorStore):
        inside = getattr(inside, "wrapped", None)
    return None if inside is None else inside.report()


class LinkCounts:
    """One ``mirror`` in the chain of one store: its share of the keys, and its counts."""

    calls: int = 0
    compared: int = 0
    differences: int = 0
    errors: int = 0
    dropped: int = 0
    left_out: int = 0

    def __init__(self, settings: Mirror, other: str, context: BuildContext) -> None:
        self.below: int = round(settings.percent / 100 * (1 << 64))
        self._name, self._other, self._logger = context.name, other, context.logger
        self._histogram = _histogram() if getattr(context.chain.get("metrics"), "enabled", False) else None
        self.here: _Timing = _Timing()
        self.there: _Timing = _Timing()
        self._next_line = 0.0
        self._told = (0, 0, 0)

    def count(self, operation: str, here: float, there: float, outcome: str) -> None:
        """Count a call that was repeated."""
        self.calls += 1
        self.here.add(here)
        self.there.add(there)
        self.compared += outcome in ("same", "different")
        self.differences += outcome == "different"
        if self._histogram is not None:
            self._histogram.record(there, {"store": self._name, "operation": operation, "outcome": outcome})

    def tell(self, reason: str) -> None:
        """Log the failures since the last line, unless that was a moment ago. Keys and values are never logged."""
        now = time.monotonic()
        if now < self._next_line:
            return
        self._next_line = now + LOG_EVERY
        before, self._told = self._told, (self.differences, self.errors, self.dropped)
        different, failed, dropped = (after - old for after, old in zip(self._told, before, strict=True))
        self._logger.warning(
            "store %r: mirror %r gave %d different answers and %d errors, and %d calls were dropped since the last "
            "message: %s",
            *(self._name, self._other, different, failed, dropped, reason),
        )


def _histogram() -> Any:
    try:
        from opentelemetry.metrics import get_meter
    except ImportError:
        return None  # which `metrics` itself tells
    return get_meter("storeconf").create_histogram(
        "storeconf.mirror.duration", unit="s", description="Duration of the calls that mirror repeats"
    )


_Part: TypeAlias = "tuple[RepeatedCall, tuple[int, int, Collection[int]]]"
"""A call for some keys, and the result of `RootPair.begin` for them."""


def _may_have_happened(error: BaseException) -> bool:
    """Whether a call that was to change something may have done so: if not, it is not repeated."""
    return not isinstance(error, Exception) or bool(getattr(error, "outcome_unknown", False))


def _fixed(row: Operation, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The arguments with values that nobody can change any more; None if they are wrong, which the call will tell."""
    at = row.expiry
    for each in args[1:at]:
        if each.__class__ is not bytes and each is not None:
            try:
                return (args[0], *(None if each is None else value_bytes(each) for each in args[1:at]), *args[at:])
            except (TypeError, StoreValueError):
                return None
    return args


# ---------------------------------------------------------------------- the store


@pass_through(*named(lambda operation: operation.target == "tree" and not operation.changes))
class MirrorStore(GuardedStore):
    """Repeats calls on another store once they have ended."""

    keeps_keys = True

    def __init__(self, inner: Store, other: Store, link: LinkCounts) -> None:
        self.other: Store | None = other
        self._link = link
        self._pair = pair_of(inner, other)
        super().__init__(inner)

    def on_bind(self) -> None:
        """Prepare the digests of this namespace's keys."""
        self._digest = blake2b(":".join(self._path).encode() + b"::", digest_size=8)

    def with_namespace(self, namespace: str) -> Self:
        """Return the store of a namespace; it is mirrored in the same namespace of the other store, if it has any."""
        child = super().with_namespace(namespace)
        if self.other is not None:
            try:
                child.other = self.other.with_namespace(namespace)
            except UnsupportedOperationError:  # keys without a prefix, which callers must not notice
                child.other = None
        return child

    def report(self) -> MirrorReport:
        """Return the counts so far."""
        link, pending = self._link, self._pair.pending  # which comes first: it finds out about the others
        return MirrorReport(
            link.calls, link.compared, link.differences, link.errors, link.dropped, link.left_out, pending,
            link.here.summary(), link.there.summary(),
        )  # fmt: skip

    async def around(
        self, operation: str, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any
    ) -> Any:
        """Run the call, and let it be repeated."""
        row, other = OPERATIONS[operation], self.other
        if other is None:
            self._link.left_out += 1
            return await call(*args, **kwargs)
        if row.target == "tree":
            return await self._around_tree(row, other, call)
        if row.target == "keys":
            return await self._around_many(row, other, call, args, kwargs)
        fixed = _fixed(row, args) if row.stores else args
        if fixed is None:
            return await call(*args, **kwargs)
        mirrored, pair = CallHere(self, self._link, other, row, fixed, kwargs), self._pair
        pair.enter(mirrored)
        try:
            mirrored.answer = answer = await call(*args, **kwargs)
            return answer
        except BaseException as error:
            mirrored.unknown = True
            mirrored.happened = row.changes and _may_have_happened(error)
            raise
        finally:
            pair.leave(mirrored)

    async def _around_tree(self, row: Operation, other: Store, call: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        pair, start, happened = self._pair, time.monotonic(), True
        mirrored = RepeatedCall(self._link, other, row, {}, (), {})
        pair.begin_tree()
        try:
            await call()
        except BaseException as error:
            mirrored.unknown = True
            happened = _may_have_happened(error)
            raise
        finally:
            if happened:
                mirrored.ended = time.monotonic()
                mirrored.seconds = mirrored.ended - start
                pair.repeat(mirrored, None)
            else:
                pair.end_tree()

    async def _around_many(
        self,
        row: Operation,
        other: Store,
        call: Callable[..., Coroutine[Any, Any, Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """As `around`, for many keys: those of each batch are repeated by a call of its own."""
        parts: list[_Part] = []
        start, happened, unknown, answer = time.monotonic(), False, True, None
        try:
            # Keys or values of wrong types, about which the store itself tells.
            with suppress(TypeError, LookupError, StoreValueError):
                await self._begin_parts(row, other, args, kwargs, parts)
            start = time.monotonic()
            try:
                answer = await call(*args, **kwargs)
            except BaseException as error:
                happened = row.changes and _may_have_happened(error)
                raise
            happened, unknown = True, False
            return answer
        finally:
            ended, pace, cancelled = time.monotonic(), Pace(), None
            for part, begun in parts:
                if happened:
                    part.answer, part.unknown = answer, unknown
                    part.seconds, part.ended = ended - start, ended
                    self._pair.repeat(part, begun)
                elif row.changes:
                    self._pair.end(part.keys, begun)
                if cancelled is None and pace.due():
                    try:
                        await pace.rest()
                    except asyncio.CancelledError as error:
                        cancelled = error  # once all parts have ended
            if cancelled is not None:
                raise cancelled

    async def _begin_parts(
        self, row: Operation, other: Store, args: tuple[Any, ...], kwargs: dict[str, Any], parts: list[_Part]
    ) -> None:
        given, pace = args[0], Pace()
        names = list(dict.fromkeys(given))
        for batch in batches(names):
            keys = {digest: key for key in batch if (digest := self.chosen(key)) is not None}
            if keys:
                some: Any = list(keys.values())
                if row.stores:
                    some = {key: value_bytes(given[key]) for key in some}
                part = RepeatedCall(self._link, other, row, keys, (some, *args[1:]), kwargs)
                if row.result != "values" and len(keys) < len(names):
                    part.comparable = False  # the answer is about all keys
                parts.append((part, self._pair.begin(keys, row.changes)))
            if pace.due():
                await pace.rest()

    def chosen(self, key: str) -> int | None:
        """Return the digest of a key that is mirrored; stable, so that all processes choose the same keys."""
        digest = self._digest.copy()
        try:
            digest.update(key.encode())
        except (AttributeError, UnicodeEncodeError):  # it is not a key, as the store tells the caller
            return None
        number = int.from_bytes(digest.digest())
        if number >= self._link.below:
            return None
        if self._pair.leaves_out(number):
            self._link.left_out += 1
            return None
        return number
