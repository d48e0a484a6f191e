"""The stateful model: random histories against a dict with a clock. Imports hypothesis, so import it only when used.

Time really passes while a history runs, so the model never claims to know what a clock alone can tell: for each key it
keeps every entry that may be there, and each reply must agree with at least one of them, which then remains.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from storeconf import StoreValueError, UnsupportedOperationError
from storeconf.testing._model import (
    COARSE,
    SLACK,
    History,
    HungError,
    Path,
    State,
    becomes,
    deletes,
    has,
    integer,
    is_there,
)
from storeconf.testing._suite import equal, holds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storeconf import Store
    from storeconf.testing.conformance import StoreConformance

__all__ = ["StoreModel", "check_model"]

_SHORT = 0.02

families: st.SearchStrategy[tuple[Path, Path]] = st.sampled_from(
    [
        *(((), ("a",)), (("a",), ("a", "b")), (("a",), ("ab",)), (("a",), ("a_b",)), (("a",), ("A",))),
        *((("a", "b"), ("ab",)), ((), ("a", "b", "c"))),
    ]
)
twins: st.SearchStrategy[list[str]] = st.sampled_from(
    [
        *(["k", "K"], ["é", "e\u0301"], ["", ":k"], ["b::k", "k"], ["a:b::k", "k"], ["k\n", "k"], ["*", "k"]),
        *(["../k", "k"], ["k" * 300, "k" * 299]),
    ]
)
values: st.SearchStrategy[bytes] = st.sampled_from(
    [b"", b"v", b"w", b"0", b"41", b"-7", b"007", b"\x00\xff", b"x" * 2000]
)
over: st.SearchStrategy[float | timedelta | int] = st.sampled_from([0, -1, -0.5, timedelta(0), timedelta(days=-1)])
spans: st.SearchStrategy[float | timedelta | int] = st.one_of(
    st.sampled_from([_SHORT, timedelta(seconds=_SHORT), 3600, 3600.5, timedelta(days=2)]), over
)
expiries: st.SearchStrategy[float | timedelta | int | None] = st.one_of(st.none(), spans)
indexes: st.SearchStrategy[int] = st.integers(0, 3)
steps: st.SearchStrategy[int] = st.sampled_from([1, -1, 0, 10, (1 << 63) - 1, -(1 << 63)])


class StoreModel(History):
    """Every operation of a store, the passing of time, and opening again, as rules."""

    @initialize(paths=families, keys=twins)
    def choose(self, paths: tuple[Path, Path], keys: list[str]) -> None:
        """Choose the few places that this history is about, so that its calls meet."""
        self.paths: tuple[Path, Path] = paths
        most = self.capabilities.max_key_size
        path = f"{self.stores[0].namespace or ''}:a:b:c::"  # the longest of the families
        fits = most is None or all(len((path + key).encode()) <= most for key in keys)
        self.keys: list[str] = keys if fits else ["k", "K"]

    def fit(self, value: bytes) -> bytes:
        """Return as much of a value as the store declares that it takes."""
        return value[: self.capabilities.max_value_size]

    # ------------------------------------------------------------------ one key

    @rule(second=st.booleans(), at=indexes, value=values, expiry=expiries, keep=st.booleans())
    def set_value(self, second: bool, at: int, value: bytes, expiry: Any, keep: bool) -> None:
        """Set, with or without an expiry, or keeping the one that is there."""
        path, key = self.pick(at)
        keep, value = keep and expiry is None, self.fit(value)
        store = self.handle(second, path)
        reply, when = self.call(lambda: store.set(key, value, expiry, keep_ttl=keep))

        def step(entry: State) -> Iterator[State]:
            if reply is None:
                yield replace(entry, value=value) if keep and entry is not None else when.entry(value, expiry)

        self.learn((path, key), step, reply, when)

    @rule(second=st.booleans(), at=indexes, renew=expiries)
    def get_value(self, second: bool, at: int, renew: Any) -> None:
        """Get, renewing or not."""
        path, key = self.pick(at)
        store = self.handle(second, path)
        reply, when = self.call(lambda: store.get(key, renew_for=renew))

        def step(entry: State) -> Iterator[State]:
            if reply != (None if entry is None else entry.value):
                return
            if entry is None or entry.permanent or renew is None:
                yield entry
            else:
                yield when.entry(entry.value, renew)

        self.learn((path, key), step, reply, when)

    @rule(second=st.booleans(), at=indexes)
    def delete_key(self, second: bool, at: int) -> None:
        """Delete."""
        path, key = self.pick(at)
        store = self.handle(second, path)
        reply, when = self.call(lambda: store.delete(key))
        self.learn((path, key), deletes(reply), reply, when)

    @rule(second=st.booleans(), at=indexes)
    def ask(self, second: bool, at: int) -> None:
        """Ask for existence and expiry in every way."""
        path, key = self.pick(at)
        store = self.handle(second, path)
        late = self.capabilities.resolution
        exists, when = self.call(lambda: store.exists(key))
        self.learn((path, key), is_there(exists), exists, when)
        left, when = self.call(lambda: store.expires_in(key))

        def told(entry: State) -> Iterator[State]:
            if entry is None or entry.permanent:
                agrees = left == (None if entry is None else -1)
            else:
                low, high = entry.low - when.answered - self.early, entry.high - when.asked + late + COARSE
                agrees = isinstance(left, int) and math.ceil(low) <= left <= math.ceil(high)
            if agrees:
                yield entry

        self.learn((path, key), told, left, when)
        self.check_entry(second, (path, key))

    @rule(second=st.booleans(), at=indexes, value=values, expiry=expiries)
    def get_or_set(self, second: bool, at: int, value: bytes, expiry: Any) -> None:
        """Get, or set the value of a factory."""
        path, key = self.pick(at)
        store = self.handle(second, path)
        value = self.fit(value)
        ran = []

        def factory() -> bytes:
            ran.append(1)
            return value

        reply, when = self.call(lambda: store.get_or_set(key, factory, expiry))

        def step(entry: State) -> Iterator[State]:
            if entry is None and ran and reply == value:
                yield when.entry(value, expiry)
            elif entry is not None and not ran and reply == entry.value:
                yield entry

        self.learn((path, key), step, reply, when)

    # ------------------------------------------------------------------ atomic

    @rule(second=st.booleans(), at=indexes, value=values, expiry=expiries)
    def add(self, second: bool, at: int, value: bytes, expiry: Any) -> None:
        """Add."""
        path, key = self.pick(at)
        store = self.handle(second, path)
        value = self.fit(value)
        reply, when = self.call(lambda: store.add(key, value, expiry))
        if not self.offered("add", reply):
            return

        def step(entry: State) -> Iterator[State]:
            if reply is (entry is None):
                yield when.entry(value, expiry) if entry is None else entry

        self.learn((path, key), step, reply, when)

    @rule(second=st.booleans(), at=indexes, expiry=expiries)
    def touch(self, second: bool, at: int, expiry: Any) -> None:
        """Touch."""
        path, key = self.pick(at)
        store = self.handle(second, path)
        reply, when = self.call(lambda: store.touch(key, expiry))
        if not self.offered("touch", reply):
            return

        def step(entry: State) -> Iterator[State]:
            if reply is (entry is not None):
                yield None if entry is None else when.entry(entry.value, expiry)

        self.learn((path, key), step, reply, when)

    @rule(second=st.booleans(), at=indexes)
    def pop(self, second: bool, at: int) -> None:
        """Pop."""
        path, key = self.pick(at)
        store = self.handle(second, path)
        reply, when = self.call(lambda: store.pop(key))
        if not self.offered("pop", reply):
            return

        def step(entry: State) -> Iterator[State]:
            if reply == (None if entry is None else entry.value):
                yield None

        self.learn((path, key), step, reply, when)

    @rule(second=st.booleans(), at=indexes, by=steps, expiry=expiries)
    def increment(self, second: bool, at: int, by: int, expiry: Any) -> None:
        """Increment, also of a value that is not a number, and beyond the limits."""
        path, key = self.pick(at)
        store = self.handle(second, path)
        reply, when = self.call(lambda: store.increment(key, by, expiry))
        if not self.offered("increment", reply):
            return

        def step(entry: State) -> Iterator[State]:
            number = 0 if entry is None else integer(entry.value)
            total = None if number is None else number + by
            if total is None or not -(1 << 63) <= total < 1 << 63:
                if isinstance(reply, StoreValueError):
                    yield entry
            elif reply == total:
                value = str(total).encode()
                yield when.entry(value, expiry) if entry is None else replace(entry, value=value)

        self.learn((path, key), step, reply, when)

    @rule(
        second=st.booleans(),
        at=indexes,
        old=st.one_of(st.none(), values),
        new=st.one_of(st.none(), values),
        expiry=expiries,
        keep=st.booleans(),
    )
    def compare_and_set(
        self, second: bool, at: int, old: bytes | None, new: bytes | None, expiry: Any, keep: bool
    ) -> None:
        """Compare and set."""
        path, key = self.pick(at)
        keep = keep and expiry is None
        store = self.handle(second, path)
        old, new = (None if value is None else self.fit(value) for value in (old, new))
        reply, when = self.call(lambda: store.compare_and_set(key, old, new, expiry, keep_ttl=keep))
        if not self.offered("compare_and_set", reply):
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

        self.learn((path, key), step, reply, when)

    # ------------------------------------------------------------------ many keys

    @rule(second=st.booleans(), at=indexes, chosen=st.dictionaries(indexes, values, max_size=4), expiry=expiries)
    def set_many(self, second: bool, at: int, chosen: dict[int, bytes], expiry: Any) -> None:
        """Set several keys."""
        path = self.path(at)
        items = {self.pick(each)[1]: self.fit(value) for each, value in chosen.items()}
        store = self.handle(second, path)
        reply, when = self.call(lambda: store.set_many(items, expiry))
        equal(reply, None, "set_many returns None")
        for key, value in items.items():
            self.learn((path, key), becomes(when.entry(value, expiry)), reply, when)

    @rule(second=st.booleans(), at=indexes, chosen=st.lists(indexes, max_size=5))
    def get_many(self, second: bool, at: int, chosen: list[int]) -> None:
        """Get several keys."""
        path = self.path(at)
        names = [self.pick(each)[1] for each in chosen]
        store = self.handle(second, path)
        reply, when = self.call(lambda: store.get_many(names))
        found = reply if isinstance(reply, dict) else {"": reply}
        holds(found.keys() <= set(names), f"get_many({names!r}) gives a dict of hits; it gave {reply!r}")
        for key in names:
            self.learn((path, key), has(found.get(key)), reply, when)

    @rule(second=st.booleans(), at=indexes, chosen=st.lists(indexes, max_size=5))
    def delete_many(self, second: bool, at: int, chosen: list[int]) -> None:
        """Delete several keys."""
        path = self.path(at)
        names = [self.pick(each)[1] for each in chosen]
        store = self.handle(second, path)
        reply, when = self.call(lambda: store.delete_many(names))
        there = [self.candidates((path, key), when.asked, when.answered) for key in set(names)]
        least, most = sum(None not in each for each in there), sum(each != {None} for each in there)
        agrees = reply is None or (isinstance(reply, int) and least <= reply <= most)
        holds(agrees, f"delete_many({names!r}) counts the keys that were there: {least} to {most}; it gave {reply!r}")
        for key in names:
            self.learn((path, key), becomes(None), reply, when)

    @rule(second=st.booleans(), at=indexes, depth=st.integers(0, 3))
    def delete_all(self, second: bool, at: int, depth: int) -> None:
        """Empty a namespace and all below it."""
        path = self.path(at)[:depth]
        store = self.handle(second, path)
        reply, _ = self.call(store.delete_all)
        if not self.capabilities.lists and isinstance(reply, UnsupportedOperationError):
            return
        for place in self.entries:
            if place[0][: len(path)] == path:
                self.entries[place] = frozenset([None])

    @rule(second=st.booleans(), at=indexes, prefix=st.sampled_from(["", "k", "K", ":", "*", "e", "b::"]))
    def list_keys(self, second: bool, at: int, prefix: str) -> None:
        """List a namespace."""
        self.check_keys(second, self.path(at), prefix)

    # ------------------------------------------------------------------ time and life

    @rule()
    def let_time_pass(self) -> None:
        """Wait until all that has a short expiry is over."""

        async def wait() -> None:
            late = self.capabilities.resolution + SLACK
            while (ends := self.ends()) and (left := max(ends) + late - self.suite.now()) >= 0:
                await self.suite.advance(left + 0.001)

        self.run(wait())

    @rule(second=st.booleans(), at=indexes)
    def delete_expired(self, second: bool, at: int) -> None:
        """Sweep; nobody may notice."""
        self.call(self.handle(second, self.path(at)).delete_expired)

    @rule()
    def reopen(self) -> None:
        """Close and open the same stores again, or, if they are persistent, other ones on the same data."""
        self.run(self.close())
        if self.capabilities.persistent:
            self.stores: list[Store] = [self.suite.handle() for _ in self.stores]
        self.run(self.open())

    @invariant()
    def last_write_is_right(self) -> None:
        """The result of the last call is there, with its expiry; entries that expire soon are checked later."""
        holds(all(store.is_open for store in self.stores), "a store that is held open is open")
        if all(entry is None or entry.high > self.suite.now() + 1 for entry in self.entries.get(self.last, ())):
            self.check_entry(False, self.last)


def check_model(
    suite: StoreConformance | type[StoreConformance], *, max_examples: int = 100, steps: int = 50, shrink: bool = True
) -> None:
    """Run random histories of at most ``steps`` steps on fresh stores of the suite; fail with a bad one.

    ``shrink`` looks for the shortest one first, which takes longer.
    """
    hooks = suite() if isinstance(suite, type) else suite

    class ModelOfSuite(StoreModel):
        def __init__(self) -> None:
            super().__init__(hooks)

    try:
        _run(ModelOfSuite, max_examples, steps, shrink)
    except HungError as error:
        raise TimeoutError(str(error)) from error


def _run(model: type[StoreModel], max_examples: int, steps: int, shrink: bool) -> None:
    run_state_machine_as_test(
        model,
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        ),
    )
