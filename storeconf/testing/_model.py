"""The stateful model: the entries that may be there, the effect of a call on each, and one history of calls."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hypothesis.stateful import RuleBasedStateMachine

from storeconf import StoreValueError, UnsupportedOperationError
from storeconf.testing._suite import OvertimeError, all_keys, equal, holds, limited

if TYPE_CHECKING:
    from storeconf import Capabilities, Store
    from storeconf.testing.conformance import StoreConformance

Path = tuple[str, ...]
Place = tuple[Path, str]

SLACK = 0.02
"""Seconds by which an expiry may come late beyond the resolution, because the clocks are read one after another."""

COARSE = 0.002
"""Seconds by which the clock of a store and that of the suite may round differently."""


@dataclass(frozen=True, slots=True)
class KnownEntry:
    """A value that ends at some time from ``low`` to ``high``; never, when they are infinite."""

    value: bytes
    low: float = math.inf
    high: float = math.inf

    @property
    def permanent(self) -> bool:
        """Whether it never expires."""
        return self.high == math.inf


State = KnownEntry | None

Step = Callable[[State], Iterator[State]]
"""The states that a call makes of a state: none, if its reply does not agree with it."""


def seconds(span: float | timedelta) -> float:
    """Return a span of time in seconds."""
    return span.total_seconds() if isinstance(span, timedelta) else float(span)


@dataclass(frozen=True, slots=True)
class Times:
    """When a call was made and when it returned."""

    asked: float
    answered: float

    def entry(self, value: bytes, expiry: float | timedelta | None) -> State:
        """Return the entry that the call leaves behind if it gives the value this expiry."""
        if expiry is None:
            return KnownEntry(value)
        span = seconds(expiry)
        return None if span <= 0 else KnownEntry(value, self.asked + span - COARSE, self.answered + span + COARSE)


def has(value: object) -> Step:
    """Agree with an entry that has this value; None means no entry."""

    def step(entry: State) -> Iterator[State]:
        if value == (None if entry is None else entry.value):
            yield entry

    return step


def is_there(reply: object) -> Step:
    """Agree with an entry if the reply says that there is one, or else with none."""

    def step(entry: State) -> Iterator[State]:
        if reply is (entry is not None):
            yield entry

    return step


def becomes(state: State) -> Step:
    """Agree with everything, and leave this."""
    return lambda _: iter([state])


def deletes(reply: object) -> Step:
    """Agree with the result of delete, where None means unknown, and leave no entry."""

    def step(entry: State) -> Iterator[State]:
        if reply is None or reply is (entry is not None):
            yield None

    return step


def integer(value: bytes) -> int | None:
    """Return the number that a value holds: only its one canonical form counts."""
    try:
        number = int(value)
    except ValueError:
        return None
    return number if str(number).encode() == value else None


class HungError(BaseException):
    """A call did not end. No Exception, so that Hypothesis does not look for a shorter history that hangs as long."""


class History(RuleBasedStateMachine):
    """One history of calls on a fresh store of ``suite``, each compared with the possible entries."""

    def __init__(self, suite: StoreConformance) -> None:
        super().__init__()
        self.suite = suite
        self.hung: bool = False
        self.paths: tuple[Path, Path] = ((), ())
        self.keys: list[str] = ["", ""]
        self.last: Place = ((), "")
        self.longest_call: float = 0.0
        self.entries: dict[Place, frozenset[State]] = {}
        with ExitStack() as leave:
            self.stores: list[Store] = [leave.enter_context(suite.place())]
            self.runner: asyncio.Runner = leave.enter_context(suite.runner())
            self.capabilities: Capabilities = suite.capabilities(self.stores[0])
            if self.capabilities.shared:
                self.stores.append(suite.handle())
            self.run(self.open())
            leave.callback(lambda: self.run(self.close()))
            self._leave = leave.pop_all()

    def pick(self, at: int) -> Place:
        """Return one of the four places."""
        return self.path(at), self.keys[at % 2]

    def path(self, at: int) -> Path:
        """Return one of the two paths."""
        return self.paths[at // 2]

    def run(self, work: Any) -> Any:
        """Run in the history's own event loop, for the suite's time limit at most."""

        async def bounded() -> Any:
            async with asyncio.timeout(self.suite.time_limit):
                return await work

        if self.hung:
            work.close()
            return None
        try:
            with limited(self.suite.time_limit):
                return self.runner.run(bounded())
        except TimeoutError as error:
            if type(error) not in (TimeoutError, OvertimeError):  # the store's own
                raise
            self.hung = True
            raise HungError(str(error) or f"a call took longer than {self.suite.time_limit:g} s") from error

    async def open(self) -> None:
        """Enter all stores."""
        for store in self.stores:
            await store.__aenter__()

    async def close(self) -> None:
        """Leave all stores."""
        for store in self.stores:
            await store.__aexit__(None, None, None)

    def handle(self, second: bool, path: Path) -> Store:
        """Return a handle of the first or the second store."""
        store = self.stores[second % len(self.stores)]
        for name in path:
            store = store.with_namespace(name)
        return store

    def candidates(self, place: Place, asked: float, answered: float) -> frozenset[State]:
        """The states that are possible at some moment between the question and the answer."""
        found: set[State] = set()
        for entry in self.entries.get(place, frozenset([None])):
            if entry is None or entry.low > answered:
                found.add(entry)
            elif asked > entry.high + self.capabilities.resolution + SLACK:
                found.add(None)
            else:
                found |= {entry, None}
        return frozenset(found)

    def learn(self, place: Place, step: Step, reply: object, when: Times) -> None:
        """Keep the states that ``step`` leads to from those that agree with the reply; none means a broken promise."""
        before = self.candidates(place, when.asked, when.answered)
        after = frozenset(state for entry in before for state in step(entry))
        if not after:
            raise AssertionError(f"the reply {reply!r} for {place!r} agrees with none of {set(before)!r}")
        self.entries[place] = after
        self.last = place

    def call(self, call: Callable[[], Awaitable[object]]) -> tuple[object, Times]:
        """Return the reply, which may be the error that a store raises on purpose, and when it was asked for."""

        async def timed() -> tuple[object, Times]:
            asked = self.suite.now()
            reply: object
            try:
                reply = await call()
            except (StoreValueError, UnsupportedOperationError) as error:
                reply = error
            return reply, Times(asked, self.suite.now())

        reply, when = self.run(timed())
        self.longest_call = max(self.longest_call, when.answered - when.asked)
        return reply, when

    def offered(self, operation: str, reply: object) -> bool:
        """Whether the operation is declared; if not, it must have refused."""
        if operation in self.capabilities.atomic:
            return True
        holds(isinstance(reply, UnsupportedOperationError), f"{operation}, not declared, refuses; it gave {reply!r}")
        return False

    @property
    def early(self) -> float:
        """By how many seconds a remaining time may be too low: a near copy has the time left when it was read."""
        return COARSE + self.longest_call

    def ends(self) -> list[float]:
        """Return when those entries are over that end soon."""
        states = [state for group in self.entries.values() for state in group if state is not None]
        return [state.high for state in states if state.high < self.suite.now() + 1]

    def check_entry(self, second: bool, place: Place) -> None:
        """Compare value and expiry of one place."""
        path, key = place
        late = self.capabilities.resolution
        found, when = self.call(lambda: self.handle(second, path).get_with_expiry(key))

        def told_exactly(entry: State) -> Iterator[State]:
            if entry is None or entry.permanent:
                agrees = found == (None if entry is None else (entry.value, None))
            else:
                low, high = entry.low - when.answered - self.early, entry.high - when.asked + late + COARSE
                agrees = isinstance(found, tuple) and found[0] == entry.value and found[1] is not None
                agrees = agrees and low <= found[1] <= high  # type: ignore[index]  # checked above
            if agrees:
                yield entry

        self.learn(place, told_exactly, found, when)

    def check_keys(self, second: bool, path: Path, prefix: str) -> None:
        """Compare the keys of one namespace."""
        listed, when = self.call(lambda: all_keys(self.handle(second, path), prefix))
        if not self.capabilities.lists:
            holds(isinstance(listed, UnsupportedOperationError), f"keys, not declared, refuses; it gave {listed!r}")
            return
        if not isinstance(listed, set):
            raise AssertionError(f"keys({prefix!r}) lists keys; it raised {listed!r}")
        known = {key for place, key in self.entries if place == path and key.startswith(prefix)}
        equal(listed - known, set[str](), f"keys({prefix!r}) in {path!r} lists nothing that nobody set")
        for key in known:
            self.learn((path, key), is_there(key in listed), key in listed, when)

    def check_value(self, path: Path, key: str) -> None:
        """Compare one value."""
        reply, when = self.call(lambda: self.handle(True, path).get(key))
        self.learn((path, key), has(reply), reply, when)

    def teardown(self) -> None:
        """Compare everything once more and leave nothing behind."""
        with self._leave:
            if self.hung:
                return
            for path in {path for path, _ in self.entries}:
                self.check_keys(False, path, "")
            for path, key in list(self.entries):
                self.check_value(path, key)
