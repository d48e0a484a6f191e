"""`storeconf.sync`: typed stores, cached functions and locks for code without an event loop."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, assert_type

import pytest
from pydantic import BaseModel

import storeconf
import storeconf.sync
from storeconf._background import run_in_background
from storeconf._lock import _entries
from storeconf.sync import SyncTypedStore, cached, load, lock, typed
from tests.servers import Server, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from storeconf.sync import SyncRegistry, SyncStore


class Price(BaseModel):
    cents: int


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("valkey-9.1") as server:
        yield server


@pytest.fixture(params=["memory", "file", "valkey"])
def registry(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> Iterator[SyncRegistry]:
    root: dict[str, Any] = {"type": request.param, "namespace": "t"}
    if request.param == "file":
        root["path"] = str(tmp_path / "files")
    elif request.param == "valkey":
        server.ask("FLUSHALL")
        root["url"] = f"valkey://{server.address}/0"
    with load({"stores": {"main": root}}, environ={}) as registry:
        yield registry


@pytest.fixture
def store(registry: SyncRegistry) -> SyncStore:
    return registry["main"]


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    with ThreadPoolExecutor(count) as pool:
        return [each.result(30) for each in [pool.submit(work, number) for number in range(count)]]


def test_a_typed_store(store: SyncStore) -> None:
    prices = typed(store, Price)
    assert_type(prices, SyncTypedStore[Price])
    assert prices.get("a") is None
    prices.set("a", Price(cents=1), expires_in=60)
    assert prices.get("a") == prices.get("a", renew_for=90) == Price(cents=1)
    assert prices.expires_in("a") == 90
    assert prices.compare_and_set("a", Price(cents=1), Price(cents=2), keep_ttl=True)
    assert prices.add("b", Price(cents=3))
    prices.set_many({"c": Price(cents=4)})
    assert prices.get_many(["a", "b", "c"]) == {"a": Price(cents=2), "b": Price(cents=3), "c": Price(cents=4)}
    assert sorted(prices.keys()) == ["a", "b", "c"]
    assert prices.pop("c") == Price(cents=4)
    assert prices.touch("b", 5)
    assert prices.exists("b")
    assert prices.delete("b")
    assert prices.delete_many(["a"]) == 1
    assert prices.increment("n") == 1
    assert list(prices.walk()) == [((), "n")]
    assert prices.ping().ok
    below = prices.with_namespace("below")
    below.set("z", Price(cents=0))
    prices.delete_expired()
    prices.delete_all()
    assert below.get("z") is None


def test_a_value_that_is_not_valid(store: SyncStore) -> None:
    store.set("k", "no price")
    with pytest.raises(storeconf.StoreValueError, match="not valid as Price"):
        typed(store, Price).get("k")
    prices = typed(store, Price, invalid="miss")
    assert prices.get("k") is None
    assert prices.get_or_set("k", lambda: Price(cents=5)) == Price(cents=5)
    assert typed(store, Price).get("k") == Price(cents=5)


def test_one_run_of_a_cached_function_among_all_threads(store: SyncStore) -> None:
    ran: list[int] = []

    @cached(store, expires_in=60)
    def price(product: int, currency: str = "EUR") -> Price | None:
        ran.append(product)
        time.sleep(0.05)
        return None if currency == "XXX" else Price(cents=product)

    assert_type(price(1), Price | None)
    assert in_threads(8, lambda _: price(7)) == [Price(cents=7)] * 8
    assert ran == [1, 7]
    assert price(7, "EUR") == price(product=7) == Price(cents=7)
    assert price(7, "XXX") is price(7, currency="XXX") is None
    assert ran == [1, 7, 7]
    assert price.invalidate(7)
    assert not price.invalidate(7)
    assert price(7) == Price(cents=7)
    assert len(ran) == 4
    store.set(price.key(7), "of an older release")
    assert price(7) == Price(cents=7)
    assert len(ran) == 5
    assert price.__name__ == "price"


def test_a_cached_function_of_a_store_by_name_and_a_method(registry: SyncRegistry) -> None:
    class Shop:
        def __init__(self, number: int) -> None:
            self.number = number

        @cached("main", registry, key=lambda self, product: f"shop:{self.number}:{product}")
        def price(self, product: int) -> int:
            return self.number * product

    assert Shop(2).price(3) == 6
    assert registry["main"].get("shop:2:3") == b"6"
    assert Shop(2).price.key(3) == "shop:2:3"
    assert Shop(2).price.invalidate(3)


def test_what_can_not_be_cached(store: SyncStore) -> None:
    with pytest.raises(TypeError, match=r"storeconf\.cached"):

        @cached(store)
        async def coroutine() -> int:
            return 1

    with pytest.raises(TypeError, match="annotate what"):

        @cached(store)
        def unannotated():  # type: ignore[no-untyped-def]
            return 1

    with pytest.raises(TypeError, match="needs its registry"):
        cached("main")


def test_threads_hold_a_lock_one_after_another(store: SyncStore) -> None:
    inside = 0
    tokens: list[int] = []

    def work(_: int) -> None:
        nonlocal inside
        for _ in range(5):
            with lock(store, "l") as held:
                inside += 1
                assert inside == 1
                held.check()
                tokens.append(held.token)
                time.sleep(0.001)
                inside -= 1

    in_threads(4, work)
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 20


def test_a_lock_that_is_not_free(store: SyncStore) -> None:
    with lock(store, "l"):
        begun = time.monotonic()
        with pytest.raises(storeconf.StoreLockBusyError), lock(store, "l", wait=0):
            pass
        with pytest.raises(storeconf.StoreLockBusyError), lock(store, "l", wait=0.1):
            pass
        assert time.monotonic() - begun < 5
    with lock(store, "l", wait=0) as held, pytest.raises(RuntimeError, match="in use"):
        held.__enter__()
    with pytest.raises(RuntimeError, match="not in use"):
        held.check()


def test_a_lock_is_renewed_while_its_body_blocks(store: SyncStore) -> None:
    with lock(store, "l", lease=0.3) as held:
        time.sleep(0.8)
        held.check()
        with pytest.raises(storeconf.StoreLockBusyError), lock(store, "l", wait=0):
            pass


def test_a_lock_that_is_lost(store: SyncStore) -> None:
    entries = storeconf.sync.SyncStore(_entries(store.wrapped))

    def lost(held: Any) -> bool:
        try:
            held.check()
        except storeconf.StoreLockLostError:
            return True
        return False

    with pytest.raises(storeconf.StoreLockLostError) as caught, lock(store, "l", lease=0.3) as held:  # noqa: PT012
        entries.delete("lease:l")
        wait_for(lambda: lost(held), "the loss")
    assert caught.value.operation == "lock"
    with pytest.raises(storeconf.StoreLockLostError), lock(store, "l"):
        entries.delete("lease:l")  # which leaving finds out
    with pytest.raises(ZeroDivisionError), lock(store, "l"):  # noqa: PT012
        entries.delete("lease:l")
        raise ZeroDivisionError
    with lock(store, "l", wait=0):
        pass


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_an_interrupted_wait_takes_no_lock(store: SyncStore) -> None:
    """The signal may come between the making of a coroutine and its begin, which Python then warns of."""

    def late(*_: object) -> None:
        raise TimeoutError("late")

    before = signal.signal(signal.SIGALRM, late)
    try:
        with lock(store, "l"):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(TimeoutError, match="late"), lock(store, "l"):
                pass
    finally:
        signal.signal(signal.SIGALRM, before)
    with lock(store, "l", wait=5):
        pass
    gc.collect()


def test_a_frozen_holder_knows_at_once_that_its_lease_has_ended(server: Server) -> None:
    """A process that was stopped for longer than its lease does not take itself for the holder when it goes on."""
    script = """
import sys, time, storeconf.sync as sync
with sync.load({"stores": {"main": {"type": "valkey", "url": sys.argv[1], "namespace": "t"}}}, environ={}) as registry:
    try:
        with sync.lock(registry["main"], "l", lease=0.5) as held:
            print(held.token, flush=True)
            while True: held.check()
    except Exception as error: print(type(error).__name__, flush=True)
"""
    url = f"valkey://{server.address}/0"
    holder = subprocess.Popen([sys.executable, "-c", script, url], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    first = int(holder.stdout.readline())
    holder.send_signal(signal.SIGSTOP)
    layout = {"stores": {"main": {"type": "valkey", "url": url, "namespace": "t"}}}
    with load(layout, environ={}) as registry, lock(registry["main"], "l", wait=10) as held:
        assert held.token > first
        holder.send_signal(signal.SIGCONT)
        assert holder.stdout.readline().strip() == "StoreLockLostError"
        held.check()
    assert holder.wait(10) == 0
    holder.stdout.close()


def test_a_forked_child_does_not_hold_its_parents_lock(server: Server) -> None:
    script = """
import os, sys, storeconf, storeconf.sync as sync
registry = sync.load({"stores": {"main": {"type": "valkey", "url": sys.argv[1], "namespace": "t"}}}, environ={})
registry.__enter__()
read, write = os.pipe()
seen = []
try:
    with sync.lock(registry["main"], "l") as held:
        child = os.fork()
        if child == 0:
            try: held.check()
            except storeconf.StoreLockLostError: seen.append("check")
        else:
            os.waitpid(child, 0)
            held.check()
except storeconf.StoreLockLostError: seen.append("leaving")
if child == 0:
    os.write(write, " ".join(seen).encode()); os._exit(0)
print(os.read(read, 99).decode(), seen)
registry.__exit__(None, None, None)
"""
    url = f"valkey://{server.address}/0"
    done = subprocess.run(
        [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", script, url],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout.strip(), done.stderr) == ("check leaving []", "")


def test_an_interrupt_right_after_the_lock_was_taken_gives_it_back(
    store: SyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_and_be_interrupted(work: Any) -> Any:
        run_in_background(work)
        raise KeyboardInterrupt

    monkeypatch.setattr("storeconf.sync.run_in_background", run_and_be_interrupted)
    with pytest.raises(KeyboardInterrupt), lock(store, "l"):
        pass
    monkeypatch.undo()
    with lock(store, "l", wait=10):
        pass
