"""The stateful model: random histories against a dict with a clock. Imports hypothesis, so import it only when used.

Time really passes while a history runs, so the model never claims to know what a clock alone can tell: for each key it
keeps every entry that may be there, and each reply must agree with at least one of them, which then remains.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from storeconf import StoreValueError, UnsupportedOperationError
from storeconf.testing._suite import all_keys

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from storeconf import Store
    from storeconf.testing.conformance import StoreConformance

__all__ = ["StoreModel", "check_model"]

T = TypeVar("T")
Path = tuple[str, ...]
Place = tuple[Path, str]

_SHORT = 0.03
_SLACK = 0.05
_COARSE = 0.002

paths = st.sampled_from([(), ("a",), ("a", "b"), ("ab",), ("a_b",), ("A",), ("a", "b", "c")])
keys = st.sampled_from(["k", "", "K", "b::k", "a:b::k", ":k", "k\n", "../k", "é", "e\u0301", "*", "k" * 300])
values = st.sampled_from([b"", b"v", b"w", b"0", b"41", b"-7", b"007", b"\x00\xff", b"x" * 2000])
over = st.sampled_from([0, -1, -0.5, timedelta(0), timedelta(days=-1)])
spans = st.one_of(st.sampled_from([_SHORT, timedelta(seconds=_SHORT), 0.5, 3600, 3600.5, timedelta(days=2)]), over)
expiries = st.one_of(st.none(), spans)
steps = st.sampled_from([1, -1, 0, 10, (1 << 63) - 1, -(1 << 63)])


def _seconds(span: float | timedelta) -> float:
    return span.total_seconds() if isinstance(span, timedelta) else float(span)


@dataclass(frozen=True, slots=True)
class Entry:
    """A value that ends at some time from ``low`` to ``high``; never, when they are infinite."""

    value: bytes
    low: float = math.inf
    high: float = math.inf

    @property
    def permanent(self) -> bool:
        """Whether it never expires."""
        return self.high == math.inf


State = Entry | None

Step = Callable[[State], Iterator[State]]
"""What a call makes of a state: nothing, if its reply does not agree with it."""


class StoreModel(RuleBasedStateMachine):
    """One history of calls on a fresh store of ``suite``, each compared with the model."""

    def __init__(self, suite: StoreConformance) -> None:
        super().__init__()
        self.suite = suite
        self.entries: dict[Place, frozenset[State]] = {}
        self.runner = suite.runner()
        self._place = suite.place()
        self.first = self._place.__enter__()
        self.stores = [self.first]
        self.capabilities = suite.capabilities(self.first)
        if self.capabilities.shared:
            self.stores.append(suite.handle())
        self._run(self._open())

    # ------------------------------------------------------------------ the model

    def _run(self, work: Any) -> Any:
        return self.runner.run(work)

    async def _open(self) -> None:
        for store in self.stores:
            await store.__aenter__()

    async def _close(self) -> None:
        for store in self.stores:
            await store.__aexit__(None, None, None)

    def _handle(self, second: bool, path: Path) -> Store:
        store = self.stores[second % len(self.stores)]
        for name in path:
            store = store.with_namespace(name)
        return store

    def _candidates(self, place: Place, asked: float, answered: float) -> frozenset[State]:
        """What may have been there at some moment between the question and the answer."""
        found: set[State] = set()
        for entry in self.entries.get(place, frozenset([None])):
            if entry is None or entry.low > answered:
                found.add(entry)
            elif asked > entry.high + self.capabilities.resolution + _SLACK:
                found.add(None)
            else:
                found |= {entry, None}
        return frozenset(found)

    def _learn(self, place: Place, step: Step, reply: object, when: Times) -> None:
        """Keep the states that ``step`` leads to from those that agree with the reply; none means a broken promise."""
        before = self._candidates(place, when.asked, when.answered)
        after = frozenset(state for entry in before for state in step(entry))
        if not after:
            raise AssertionError(f"the reply {reply!r} for {place!r} agrees with none of {set(before)!r}")
        self.entries[place] = after

    def _call(self, call: Callable[[], Awaitable[T]]) -> tuple[T | StoreValueError | UnsupportedOperationError, Times]:
        async def timed() -> tuple[T | StoreValueError | UnsupportedOperationError, Times]:
            asked = self.suite.now()
            try:
                reply: T | StoreValueError | UnsupportedOperationError = await call()
            except (StoreValueError, UnsupportedOperationError) as error:
                reply = error
            return reply, Times(asked, self.suite.now())

        result: tuple[T | StoreValueError | UnsupportedOperationError, Times] = self._run(timed())
        return result

    def _offered(self, operation: str, reply: object) -> bool:
        if operation in self.capabilities.atomic:
            return True
        assert isinstance(reply, UnsupportedOperationError), f"{operation} is not declared and gave {reply!r}"
        return False

    # ------------------------------------------------------------------ one key

    @rule(second=st.booleans(), path=paths, key=keys, value=values, expiry=expiries, keep=st.booleans())
    def set_value(self, second: bool, path: Path, key: str, value: bytes, expiry: Any, keep: bool) -> None:
        """Set, with or without an expiry, or keeping the one that is there."""
        keep = keep and expiry is None
        store = self._handle(second, path)
        reply, when = self._call(lambda: store.set(key, value, expiry, keep_ttl=keep))

        def step(entry: State) -> Iterator[State]:
            if reply is None:
                yield replace(entry, value=value) if keep and entry is not None else when.entry(value, expiry)

        self._learn((path, key), step, reply, when)

    @rule(second=st.booleans(), path=paths, key=keys, renew=expiries)
    def get_value(self, second: bool, path: Path, key: str, renew: Any) -> None:
        """Get, renewing or not."""
        store = self._handle(second, path)
        reply, when = self._call(lambda: store.get(key, renew_for=renew))

        def step(entry: State) -> Iterator[State]:
            if reply != (None if entry is None else entry.value):
                return
            if entry is None or entry.permanent or renew is None:
                yield entry
            else:
                yield when.entry(entry.value, renew)

        self._learn((path, key), step, reply, when)

    @rule(second=st.booleans(), path=paths, key=keys)
    def delete_key(self, second: bool, path: Path, key: str) -> None:
        """Delete."""
        store = self._handle(second, path)
        reply, when = self._call(lambda: store.delete(key))
        self._learn((path, key), _becomes(None), reply, when)

    @rule(second=st.booleans(), path=paths, key=keys)
    def ask(self, second: bool, path: Path, key: str) -> None:
        """Ask for existence and expiry in every way."""
        store = self._handle(second, path)
        late = self.capabilities.resolution
        exists, when = self._call(lambda: store.exists(key))
        self._learn((path, key), _is_there(exists), exists, when)
        left, when = self._call(lambda: store.expires_in(key))

        def told(entry: State) -> Iterator[State]:
            if entry is None or entry.permanent:
                agrees = left == (None if entry is None else -1)
            else:
                low, high = entry.low - when.answered - _COARSE, entry.high - when.asked + late + _COARSE
                agrees = isinstance(left, int) and math.ceil(low) <= left <= math.ceil(high)
            if agrees:
                yield entry

        self._learn((path, key), told, left, when)
        found, when = self._call(lambda: store.get_with_expiry(key))

        def told_exactly(entry: State) -> Iterator[State]:
            if entry is None or entry.permanent:
                agrees = found == (None if entry is None else (entry.value, None))
            else:
                low, high = entry.low - when.answered - _COARSE, entry.high - when.asked + late + _COARSE
                agrees = isinstance(found, tuple) and found[0] == entry.value and found[1] is not None
                agrees = agrees and low * 1000 <= found[1] <= high * 1000  # type: ignore[index,operator]  # checked above
            if agrees:
                yield entry

        self._learn((path, key), told_exactly, found, when)

    @rule(second=st.booleans(), path=paths, key=keys, value=values, expiry=expiries)
    def get_or_set(self, second: bool, path: Path, key: str, value: bytes, expiry: Any) -> None:
        """Get, or set what a factory makes."""
        store = self._handle(second, path)
        ran = []

        def factory() -> bytes:
            ran.append(1)
            return value

        reply, when = self._call(lambda: store.get_or_set(key, factory, expiry))

        def step(entry: State) -> Iterator[State]:
            if entry is None and ran and reply == value:
                yield when.entry(value, expiry)
            elif entry is not None and not ran and reply == entry.value:
                yield entry

        self._learn((path, key), step, reply, when)

    # ------------------------------------------------------------------ atomic

    @rule(second=st.booleans(), path=paths, key=keys, value=values, expiry=expiries)
    def add(self, second: bool, path: Path, key: str, value: bytes, expiry: Any) -> None:
        """Add."""
        store = self._handle(second, path)
        reply, when = self._call(lambda: store.add(key, value, expiry))
        if not self._offered("add", reply):
            return

        def step(entry: State) -> Iterator[State]:
            if reply is (entry is None):
                yield when.entry(value, expiry) if entry is None else entry

        self._learn((path, key), step, reply, when)

    @rule(second=st.booleans(), path=paths, key=keys, expiry=expiries)
    def touch(self, second: bool, path: Path, key: str, expiry: Any) -> None:
        """Touch."""
        store = self._handle(second, path)
        reply, when = self._call(lambda: store.touch(key, expiry))
        if not self._offered("touch", reply):
            return

        def step(entry: State) -> Iterator[State]:
            if reply is (entry is not None):
                yield None if entry is None else when.entry(entry.value, expiry)

        self._learn((path, key), step, reply, when)

    @rule(second=st.booleans(), path=paths, key=keys)
    def pop(self, second: bool, path: Path, key: str) -> None:
        """Pop."""
        store = self._handle(second, path)
        reply, when = self._call(lambda: store.pop(key))
        if not self._offered("pop", reply):
            return

        def step(entry: State) -> Iterator[State]:
            if reply == (None if entry is None else entry.value):
                yield None

        self._learn((path, key), step, reply, when)

    @rule(second=st.booleans(), path=paths, key=keys, by=steps, expiry=expiries)
    def increment(self, second: bool, path: Path, key: str, by: int, expiry: Any) -> None:
        """Increment, also of what is no number, and beyond the limits."""
        store = self._handle(second, path)
        reply, when = self._call(lambda: store.increment(key, by, expiry))
        if not self._offered("increment", reply):
            return

        def step(entry: State) -> Iterator[State]:
            number = 0 if entry is None else _number(entry.value)
            total = None if number is None else number + by
            if total is None or not -(1 << 63) <= total < 1 << 63:
                if isinstance(reply, StoreValueError):
                    yield entry
            elif reply == total:
                value = str(total).encode()
                yield when.entry(value, expiry) if entry is None else replace(entry, value=value)

        self._learn((path, key), step, reply, when)

    @rule(
        second=st.booleans(),
        path=paths,
        key=keys,
        old=st.one_of(st.none(), values),
        new=st.one_of(st.none(), values),
        expiry=expiries,
        keep=st.booleans(),
    )
    def compare_and_set(
        self, second: bool, path: Path, key: str, old: bytes | None, new: bytes | None, expiry: Any, keep: bool
    ) -> None:
        """Compare and set."""
        keep = keep and expiry is None
        store = self._handle(second, path)
        reply, when = self._call(lambda: store.replace(key, old, new, expiry, keep_ttl=keep))
        if not self._offered("replace", reply):
            return

        def step(entry: State) -> Iterator[State]:
            if reply is not ((None if entry is None else entry.value) == old):
                return
            if not reply:
                yield entry
            elif new is None:
                yield None
            else:
                yield replace(entry, value=new) if keep and entry is not None else when.entry(new, expiry)

        self._learn((path, key), step, reply, when)

    # ------------------------------------------------------------------ many keys

    @rule(second=st.booleans(), path=paths, items=st.dictionaries(keys, values, max_size=4), expiry=expiries)
    def set_many(self, second: bool, path: Path, items: dict[str, bytes], expiry: Any) -> None:
        """Set several keys."""
        store = self._handle(second, path)
        reply, when = self._call(lambda: store.set_many(items, expiry))
        assert reply is None
        for key, value in items.items():
            self._learn((path, key), _becomes(when.entry(value, expiry)), reply, when)

    @rule(second=st.booleans(), path=paths, names=st.lists(keys, max_size=5))
    def get_many(self, second: bool, path: Path, names: list[str]) -> None:
        """Get several keys."""
        store = self._handle(second, path)
        reply, when = self._call(lambda: store.get_many(names))
        assert isinstance(reply, dict)
        assert reply.keys() <= set(names), f"get_many({names!r}) gave {reply!r}"
        for key in names:
            value = reply.get(key)
            self._learn((path, key), _has(value), value, when)

    @rule(second=st.booleans(), path=paths, names=st.lists(keys, max_size=5))
    def delete_many(self, second: bool, path: Path, names: list[str]) -> None:
        """Delete several keys."""
        store = self._handle(second, path)
        reply, when = self._call(lambda: store.delete_many(names))
        for key in names:
            self._learn((path, key), _becomes(None), reply, when)

    @rule(second=st.booleans(), path=paths)
    def delete_all(self, second: bool, path: Path) -> None:
        """Empty a namespace and all below it."""
        store = self._handle(second, path)
        self._call(store.delete_all)
        for place in self.entries:
            if place[0][: len(path)] == path:
                self.entries[place] = frozenset([None])

    @rule(second=st.booleans(), path=paths, prefix=st.sampled_from(["", "k", "K", ":", "*", "e", "b::"]))
    def list_keys(self, second: bool, path: Path, prefix: str) -> None:
        """List a namespace."""
        self._compare_keys(self._handle(second, path), path, prefix)

    def _compare_keys(self, store: Store, path: Path, prefix: str) -> None:
        listed, when = self._call(lambda: all_keys(store, prefix))
        assert isinstance(listed, set)
        known = {key for place, key in self.entries if place == path and key.startswith(prefix)}
        assert listed <= known, f"keys({prefix!r}) in {path!r} lists {listed - known!r}, which nobody set"
        for key in known:
            self._learn((path, key), _is_there(key in listed), key in listed, when)

    # ------------------------------------------------------------------ time and life

    def _ends(self) -> list[float]:
        states = [state for group in self.entries.values() for state in group if state is not None]
        return [state.high for state in states if state.high < self.suite.now() + 1]

    @precondition(lambda self: bool(self._ends()))
    @rule()
    def let_time_pass(self) -> None:
        """Wait until all that has a short expiry is over."""

        async def wait() -> None:
            end = max(self._ends(), default=0.0) + self.capabilities.resolution + _SLACK
            while (left := end - self.suite.now()) >= 0:
                await self.suite.advance(left + 0.001)

        self._run(wait())

    @rule(second=st.booleans(), path=paths)
    def delete_expired(self, second: bool, path: Path) -> None:
        """Sweep; nobody may notice."""
        self._call(self._handle(second, path).delete_expired)

    @rule()
    def reopen(self) -> None:
        """Close and open the same stores again, or, if they are persistent, other ones on the same data."""
        self._run(self._close())
        if self.capabilities.persistent:
            self.stores = [self.first, *(self.suite.handle() for _ in self.stores)]
        self._run(self._open())

    @invariant()
    def stays_open(self) -> None:
        """Whoever is in the store keeps it open."""
        assert all(store.is_open for store in self.stores), "a store that is held open is open"

    def teardown(self) -> None:
        """Compare everything once more and leave nothing behind."""
        try:
            for path in {path for path, _ in self.entries}:
                self._compare_keys(self._handle(False, path), path, "")
            for path, key in list(self.entries):
                reply, when = self._call(functools.partial(self._handle(True, path).get, key))
                self._learn((path, key), _has(reply), reply, when)
        finally:
            self._run(self._close())
            self.runner.close()
            self._place.__exit__(None, None, None)


@dataclass(frozen=True, slots=True)
class Times:
    """When a call was made and when it returned."""

    asked: float
    answered: float

    def entry(self, value: bytes, expiry: float | timedelta | None) -> State:
        """Return what the call leaves behind if it gives the value this expiry."""
        if expiry is None:
            return Entry(value)
        span = _seconds(expiry)
        if span <= 0:
            return None
        return Entry(value, self.asked + span - _COARSE, self.answered + span + _COARSE)


def _has(value: object) -> Step:
    def step(entry: State) -> Iterator[State]:
        if value == (None if entry is None else entry.value):
            yield entry

    return step


def _is_there(reply: object) -> Step:
    def step(entry: State) -> Iterator[State]:
        if reply is (entry is not None):
            yield entry

    return step


def _becomes(state: State) -> Step:
    return lambda _: iter([state])


def _number(value: bytes) -> int | None:
    """Return the number that a value holds: only its one canonical form counts."""
    try:
        number = int(value)
    except ValueError:
        return None
    return number if str(number).encode() == value else None


def check_model(suite: StoreConformance | type[StoreConformance], *, max_examples: int = 100, steps: int = 50) -> None:
    """Run random histories of at most ``steps`` steps on fresh stores of the suite; fail with the shortest bad one."""
    hooks = suite() if isinstance(suite, type) else suite

    class History(StoreModel):
        def __init__(self) -> None:
            super().__init__(hooks)

    run_state_machine_as_test(
        History,
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        ),
    )
