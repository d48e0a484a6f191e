"""The suite can fail: stores that break one promise each, as real ones have done, and the test that catches each."""

from __future__ import annotations

import asyncio
import io
import re
import time
import unicodedata
from collections import deque
from contextlib import contextmanager
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import pytest

from storeconf import Capabilities, Store, StoreValueError
from storeconf.testing import StoreConformance, run_conformance
from storeconf.testing.stateful import check_model

from .plain import AtomicStore, PickleStore, PlainStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from storeconf.store import Expiry, Value

    from .plain import Data

Path = tuple[str, ...]


class ZeroMeansForEver(AtomicStore):
    async def set(self, key: str, value: Value, expires_in: Expiry | None = None, *, keep_ttl: bool = False) -> None:
        await super().set(key, value, expires_in or None, keep_ttl=keep_ttl)


class SiblingsShareAPrefix(AtomicStore):
    async def do_delete_all(self, path: Path) -> None:
        for place in list(self.data):
            if "/".join(place[0]).startswith("/".join(path)):
                self.data.pop(place, None)


class DeleteAllStaysShallow(AtomicStore):
    async def do_delete_all(self, path: Path) -> None:
        for place in list(self.data):
            if place[0] == path:
                self.data.pop(place, None)


class DeleteAllMatchesOneLine(AtomicStore):
    async def do_delete_all(self, path: Path) -> None:
        for place in list(self.data):
            if place[0][: len(path)] == path and re.fullmatch(".*", place[1]):
                self.data.pop(place, None)


class OnlyGetKnowsOfExpiry(AtomicStore):
    @contextmanager
    def entries(self) -> Iterator[Data]:
        yield self.data

    async def do_get(self, path: Path, key: str, renew: int | None) -> bytes | None:
        end = self.data.get((path, key), (b"", None))[1]
        if end is not None and end <= self.clock():
            del self.data[path, key]
        return await super().do_get(path, key, renew)


class IncrementReadsThenWrites(AtomicStore):
    async def do_increment(self, path: Path, key: str, by: int, expiry: int | None) -> int:
        number = int(await self.do_get(path, key, None) or 0) + by
        await self.do_set(path, key, str(number).encode(), expiry, False)
        return number


class IncrementTakesAnyNumber(AtomicStore):
    async def do_increment(self, path: Path, key: str, by: int, expiry: int | None) -> int:
        with self.entries() as entries:
            value, end = entries.get((path, key), (b"0", self.end(expiry)))
            try:
                number = int(value) + by
            except ValueError as error:
                raise StoreValueError("no number") from error
            entries[path, key] = (str(number).encode(), end)
            return number


class IncrementNeverOverflows(AtomicStore):
    async def do_increment(self, path: Path, key: str, by: int, expiry: int | None) -> int:
        with self.entries() as entries:
            value, end = entries.get((path, key), (b"0", self.end(expiry)))
            number = int(value) + by
            entries[path, key] = (str(number).encode(), end)
            return number


class IncrementRenews(AtomicStore):
    async def do_increment(self, path: Path, key: str, by: int, expiry: int | None) -> int:
        number = await super().do_increment(path, key, by, expiry)
        await self.do_touch(path, key, expiry)
        return number


class AddLooksThenWrites(AtomicStore):
    async def do_add(self, path: Path, key: str, value: bytes, expiry: int | None) -> bool:
        if await self.do_exists(path, key):
            return False
        await self.do_set(path, key, value, expiry, False)
        return True


class PopReadsThenDeletes(AtomicStore):
    async def do_pop(self, path: Path, key: str) -> bytes | None:
        value = await self.do_get(path, key, None)
        await self.do_delete(path, key)
        return value


class ReplaceReadsThenWrites(AtomicStore):
    async def do_compare_and_set(
        self, path: Path, key: str, old: bytes | None, new: bytes | None, expiry: int | None, keep_ttl: bool
    ) -> bool:
        if await self.do_get(path, key, None) != old:
            return False
        if new is None:
            await self.do_delete(path, key)
        else:
            await self.do_set(path, key, new, expiry, keep_ttl)
        return True


class RenewingWritesBack(AtomicStore):
    async def do_get(self, path: Path, key: str, renew: int | None) -> bytes | None:
        value = await super().do_get(path, key, None)
        if value is not None and renew is not None and await self.do_expires_in(path, key) != -1:
            await self.do_set(path, key, value, renew, False)
        return value


class RenewingLimitsPermanentKeys(AtomicStore):
    async def do_get(self, path: Path, key: str, renew: int | None) -> bytes | None:
        value = await super().do_get(path, key, None)
        if renew is not None:
            await self.do_touch(path, key, renew)
        return value


class KeysAreJoined(AtomicStore):
    @contextmanager
    def entries(self) -> Iterator[Data]:
        with super().entries() as entries:
            yield entries
            for place in list(entries):
                entries[(), ":".join([*place[0], place[1]])] = entries[place]

    async def do_get(self, path: Path, key: str, renew: int | None) -> bytes | None:
        return await super().do_get((), ":".join([*path, key]), renew)


class ExpiryIsRoundedDown(AtomicStore):
    async def expires_in(self, key: str) -> int | None:
        left = await self._call(self._root.do_expires_in(self._path, key))
        return left if left is None or left < 0 else left // 1000


class SecondsOfATimedelta(AtomicStore):
    async def get(self, key: str, renew_for: Expiry | None = None) -> bytes | None:
        return await super().get(key, renew_for.seconds if isinstance(renew_for, timedelta) else renew_for)


class SetKeepsTheOldExpiry(AtomicStore):
    async def do_set(self, path: Path, key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        await super().do_set(path, key, value, expiry, keep_ttl or expiry is None)


class OldTimersStillDelete(AtomicStore):
    async def do_set(self, path: Path, key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        await super().do_set(path, key, value, expiry, keep_ttl)
        if expiry is not None:
            asyncio.get_running_loop().call_later(expiry / 1000, self.data.pop, (path, key), None)


class EachCallerRunsTheFactory(AtomicStore):
    async def get_or_set(
        self,
        key: str,
        factory: Callable[[], Value | Awaitable[Value]],
        expires_in: Expiry | None = None,
        *,
        background: bool = False,
    ) -> bytes:
        value = await self.get(key)
        if value is None:
            made: Any = factory()
            value = await made if asyncio.iscoroutine(made) else made
            await self.set(key, value, expires_in)
        return value


class KeysIgnoreCase(AtomicStore):
    async def do_set(self, path: Path, key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        for place, other in list(self.data):
            if place == path and other.casefold() == key.casefold():
                await super().do_set(path, other, value, expiry, keep_ttl)
                return
        await super().do_set(path, key, value, expiry, keep_ttl)


class KeysAreNormalised(AtomicStore):
    async def do_set(self, path: Path, key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        await super().do_set(path, unicodedata.normalize("NFC", key), value, expiry, keep_ttl)


class LongKeysAreCut(AtomicStore):
    async def do_set(self, path: Path, key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        await super().do_set(path, key[:255], value, expiry, keep_ttl)


class PrefixesArePatterns(AtomicStore):
    async def do_keys(self, path: Path, prefix: str) -> AsyncIterator[str]:
        for place, key in list(self.data):
            if place == path and fnmatchcase(key, f"{prefix}*"):
                yield key


class KeysMustNotChange(AtomicStore):
    async def do_keys(self, path: Path, prefix: str) -> AsyncIterator[str]:
        for place, key in self.data:
            if place == path and key.startswith(prefix):
                yield key


class KeysReachDownwards(AtomicStore):
    async def do_keys(self, path: Path, prefix: str) -> AsyncIterator[str]:
        for place, key in list(self.data):
            if place[: len(path)] == path and key.startswith(prefix):
                yield key


class EmptyMeansMissing(AtomicStore):
    async def do_get(self, path: Path, key: str, renew: int | None) -> bytes | None:
        return await super().do_get(path, key, renew) or None


class ClosingForgets(AtomicStore):
    async def do_close(self) -> None:
        self.data.clear()


class ClosedStoresAnswer(AtomicStore):
    async def exists(self, key: str) -> bool:
        return await self._root.do_exists(self._path, key)


class OneLoopOnly(AtomicStore):
    async def do_open(self) -> None:
        self.loop = asyncio.get_running_loop()

    async def do_get(self, path: Path, key: str, renew: int | None) -> bytes | None:
        if asyncio.get_running_loop() is not self.loop:
            raise RuntimeError("attached to a different loop")
        return await super().do_get(path, key, renew)


class RepliesInAQueue(AtomicStore):
    """As a client does whose cancelled call leaves its reply on the connection for the next one."""

    async def do_open(self) -> None:
        self.requests: deque[tuple[Path, str]] = deque()

    async def do_get(self, path: Path, key: str, renew: int | None) -> bytes | None:
        self.requests.append((path, key))
        await asyncio.sleep(0)
        return self.data.get(self.requests.popleft(), (None, None))[0]


class ValuesAreReadInHalves(AtomicStore):
    async def do_get(self, path: Path, key: str, renew: int | None) -> bytes | None:
        first = await super().do_get(path, key, renew)
        second = await super().do_get(path, key, renew)
        if first is None or second is None:
            return None
        return first[: len(first) // 2] + second[len(first) // 2 :]


class AddIsNotDeclared(PlainStore):
    async def add(self, key: str, value: Value, expires_in: Expiry | None = None) -> bool:
        await self.set(key, value, expires_in)
        return True


class OnlySaysPersistent(AtomicStore):
    capabilities = Capabilities(persistent=True, atomic=Capabilities.ALL_ATOMIC)


class OnlySaysShared(AtomicStore):
    capabilities = Capabilities(shared=True, atomic=Capabilities.ALL_ATOMIC)


class ReprShowsData(AtomicStore):
    def __repr__(self) -> str:
        return f"<ReprShowsData {self._root.__dict__}>"


class SharedWithoutALock(PickleStore):
    @contextmanager
    def entries(self) -> Iterator[Data]:
        with super().entries() as entries:
            found = dict(entries)
        time.sleep(0.001)
        yield found
        with super().entries() as entries:
            if found != entries:
                entries.clear()
                entries.update(found)


CAUGHT: dict[type[PlainStore], str] = {
    ZeroMeansForEver: "test_set_with_expiry_that_is_over",
    SiblingsShareAPrefix: "test_delete_all_spares_siblings",
    DeleteAllStaysShallow: "test_delete_all_reaches_downwards_only",
    DeleteAllMatchesOneLine: "test_delete_all_takes_keys_literally",
    OnlyGetKnowsOfExpiry: "test_expired_key_does_not_exist",
    IncrementReadsThenWrites: "test_increment_is_atomic",
    IncrementTakesAnyNumber: "test_increment_of_what_is_no_number",
    IncrementNeverOverflows: "test_increment_to_the_limits",
    IncrementRenews: "test_increment_sets_expiry_only_on_creation",
    AddLooksThenWrites: "test_add_is_atomic",
    PopReadsThenDeletes: "test_pop_is_atomic",
    ReplaceReadsThenWrites: "test_replace_is_atomic",
    RenewingWritesBack: "test_renewing_is_atomic",
    RenewingLimitsPermanentKeys: "test_get_renews_only_what_expires",
    KeysAreJoined: "test_path_and_key_never_collide",
    ExpiryIsRoundedDown: "test_expires_in_is_rounded_up",
    SecondsOfATimedelta: "test_days_count_as_days",
    SetKeepsTheOldExpiry: "test_set_drops_the_old_expiry",
    EachCallerRunsTheFactory: "test_concurrent_callers_share_one_run",
    KeysIgnoreCase: "test_hostile_keys_are_distinct",
    KeysAreNormalised: "test_hostile_keys_are_distinct",
    LongKeysAreCut: "test_hostile_keys_are_distinct",
    PrefixesArePatterns: "test_keys_lists_by_literal_prefix",
    KeysMustNotChange: "test_keys_while_they_change",
    KeysReachDownwards: "test_path_and_key_never_collide",
    EmptyMeansMissing: "test_any_bytes_are_a_value",
    ClosingForgets: "test_open_again",
    ClosedStoresAnswer: "test_closed_store_refuses_every_call",
    OneLoopOnly: "test_other_event_loops",
    RepliesInAQueue: "test_cancelled_calls_mix_nothing_up",
    ValuesAreReadInHalves: "test_readers_never_see_a_mixture",
    AddIsNotDeclared: "test_undeclared_operations_refuse",
    OnlySaysPersistent: "test_persistent_values_outlive_the_store",
    OnlySaysShared: "test_shared_values_are_seen_at_once",
    ReprShowsData: "test_repr_shows_no_data",
}

IN_HISTORIES = (
    ZeroMeansForEver,
    SiblingsShareAPrefix,
    OnlyGetKnowsOfExpiry,
    IncrementTakesAnyNumber,
    IncrementRenews,
    RenewingLimitsPermanentKeys,
    SetKeepsTheOldExpiry,
    KeysIgnoreCase,
    ClosingForgets,
)
"""Those that the stateful model finds by itself."""


class ManualClock(StoreConformance):
    """A clock that moves when it is told to, so that nothing waits."""

    time = 1000.0

    def now(self) -> float:
        return self.time

    async def advance(self, seconds: float) -> None:
        self.time += seconds


def _with_clock(kind: type[PlainStore]) -> type[StoreConformance]:
    class Suite(ManualClock):
        def make_store(self) -> Store:
            return kind(self.now)

    return Suite


@pytest.mark.parametrize(("kind", "test"), CAUGHT.items(), ids=lambda value: getattr(value, "__name__", value))
def test_broken_store_is_caught(kind: type[PlainStore], test: str) -> None:
    report = run_conformance(_with_clock(kind), only=[test], output=None)
    assert [outcome.test for outcome in report.failures] == [test], f"{kind.__name__} passes {test}"
    assert isinstance(report.failures[0].error, Exception)


@pytest.mark.parametrize("test", sorted(set(CAUGHT.values())))
def test_sound_store_passes_the_same_tests(test: str) -> None:
    report = run_conformance(_with_clock(AtomicStore), only=[test], output=None)
    assert report.ok, str(report)


@pytest.mark.parametrize("kind", IN_HISTORIES, ids=lambda kind: kind.__name__)
def test_model_finds_broken_stores(kind: type[PlainStore]) -> None:
    with pytest.raises(AssertionError):
        check_model(_with_clock(kind), max_examples=1000, steps=30, shrink=False)


def test_old_timers_are_caught() -> None:
    class Suite(StoreConformance):
        def make_store(self) -> Store:
            return OldTimersStillDelete()

    report = run_conformance(Suite, only=["test_longer_expiry_replaces_a_shorter_one"], output=None)
    assert len(report.failures) == 1


def test_sharing_without_a_lock_is_caught() -> None:
    class Suite(StoreConformance):
        def make_store(self) -> Store:
            return SharedWithoutALock(self.directory / "data.pickle")

    report = run_conformance(Suite, only=["test_shared_atomic_operations_between_processes"], output=None)
    assert len(report.failures) == 1


def test_report_tells_what_failed_and_why() -> None:
    output = io.StringIO()
    tests = ["test_set_get_delete", "test_repr_shows_no_data"]
    report = run_conformance(_with_clock(ReprShowsData), only=tests, output=output)
    lines = [re.sub(r"\(\d+\.\d s\)", "(0 s)", line) for line in output.getvalue().splitlines()]
    assert lines == ["1/2 test_set_get_delete ... ok (0 s)", "2/2 test_repr_shows_no_data ... FAILED (0 s)"]
    text = str(report)
    assert "FAILED test_repr_shows_no_data: The repr of a store shows neither keys nor values." in text
    assert "in test_repr_shows_no_data" in text
    assert text.splitlines()[-1].startswith("Suite: 1 of 2 checks passed, in ")
    with pytest.raises(ValueError, match="has no test test_nothing"):
        run_conformance(_with_clock(PlainStore), only=["test_nothing"])


def test_every_test_says_what_is_promised() -> None:
    tests = [getattr(StoreConformance, name) for name in dir(StoreConformance) if name.startswith("test_")]
    assert len(tests) > 100
    assert all((test.__doc__ or "").rstrip().endswith(".") for test in tests)
