"""What servers and networks do to a store. After each fault: no wrong answer, every call ended in time, all is well."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from storeconf import StoreError, StoreTimeoutError, StoreUnavailableError
from storeconf.stores import RedisStore, ValkeyStore
from storeconf.stores.resp import connection as connections
from storeconf.stores.resp.options import ServerOptions
from tests.proxy import Proxy
from tests.servers import Server, shared

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from storeconf import Store

LIMIT = 0.5
GRACE = 0.3
"""What a busy machine may add to a timeout."""


def store_at(port: int, namespace: str, **settings: Any) -> ValkeyStore:
    options = {"command_timeout": LIMIT, "connect_timeout": LIMIT, **settings}
    return ValkeyStore.from_options(ServerOptions(url=f"redis://127.0.0.1:{port}", **options), namespace=namespace)


class Load:
    """Tasks that write and read back their own keys, and note what goes wrong and how long calls take.

    A ``forgetful`` server loses what it held; that is no wrong answer.
    """

    def __init__(self, store: Store, tasks: int = 50, *, forgetful: bool = False) -> None:
        self.store = store
        self.forgetful = forgetful
        self.tasks = tasks
        self.good = 0
        self.wrong: list[str] = []
        self.errors: Counter[str] = Counter()
        self.longest = 0.0
        self.latest = 0.0
        """How late a timer of the event loop was, at most."""

        self.stopped = False

    async def __aenter__(self) -> Load:
        self._running = [asyncio.ensure_future(self._work(number)) for number in range(self.tasks)]
        self._running.append(asyncio.ensure_future(self._watch_the_loop()))
        await self.more(self.tasks)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stopped = True
        await asyncio.gather(*self._running)

    async def more(self, calls: int, within: float = 15.0) -> None:
        """Wait until so many more calls have succeeded."""
        goal = self.good + calls
        async with asyncio.timeout(within):
            while self.good < goal:
                await asyncio.sleep(0.005)

    async def failure(self, within: float = 15.0) -> None:
        """Wait until a call has failed."""
        before = self.errors.total()
        async with asyncio.timeout(within):
            while self.errors.total() == before:
                await asyncio.sleep(0.005)

    async def _timed(self, call: Awaitable[Any]) -> Any:
        started = time.monotonic()
        try:
            result = await call
        except StoreError as error:
            self.errors[type(error).__name__] += 1
            await asyncio.sleep(0.005)
            return error
        finally:
            self.longest = max(self.longest, time.monotonic() - started)
        self.good += 1
        return result

    async def _watch_the_loop(self) -> None:
        while not self.stopped:
            due = time.monotonic() + 0.01
            await asyncio.sleep(0.01)
            self.latest = max(self.latest, time.monotonic() - due)

    async def _work(self, number: int) -> None:
        key, turn = f"k{number}", 0
        possible: set[bytes | None] = {None}
        while not self.stopped:
            turn += 1
            value = b"%d of %d" % (turn, number)
            outcome = await self._timed(self.store.set(key, value))
            if not isinstance(outcome, StoreError):
                possible = {value}
            elif outcome.outcome_unknown:
                possible.add(value)
            found = await self._timed(self.store.get(key))
            if not isinstance(found, StoreError):
                if found not in possible and not (found is None and self.forgetful):
                    self.wrong.append(f"{key}: {found!r}, not one of {possible}")
                possible = {found}


def check(load: Load, timeout: float = LIMIT) -> None:
    assert not load.wrong
    # A call waits for a few timers, and each is as late as the machine is busy.
    assert load.longest < timeout + GRACE + 3 * load.latest


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(work())  # type: ignore[arg-type]  # the tests' works are coroutine functions


def test_a_server_that_is_killed_and_comes_back() -> None:
    async def work() -> None:
        async with store_at(server.port, "kill") as store, Load(store, forgetful=True) as load:
            for _ in range(3):
                server.stop()
                await load.failure()
                await asyncio.to_thread(server.start)
                await load.more(1000)
        check(load)
        assert set(load.errors) <= {"StoreUnavailableError", "StoreTimeoutError"}

    with Server() as server:
        run(work)


def test_a_server_that_is_killed_under_increments_that_are_counted() -> None:
    """With every increment written to disk, the counter is what was acknowledged, plus at most what is unknown."""

    async def work() -> None:
        known = unknown = 0
        async with store_at(server.port, "count", retries=0) as store:
            stopped = False

            async def count() -> None:
                nonlocal known, unknown
                while not stopped:
                    try:
                        await store.increment("n")
                        known += 1
                    except StoreError as error:
                        unknown += error.outcome_unknown
                        await asyncio.sleep(0.002)

            async def more(calls: int) -> None:
                goal = known + calls
                async with asyncio.timeout(15):
                    while known < goal:
                        await asyncio.sleep(0.005)

            tasks = [asyncio.ensure_future(count()) for _ in range(20)]
            for _ in range(2):
                await more(100)
                server.stop()
                await asyncio.to_thread(server.start)
            await more(100)
            stopped = True
            await asyncio.gather(*tasks)
            value = await store.increment("n", 0)
        assert known <= value <= known + unknown

    with Server(appendonly="yes", appendfsync="always") as server:
        run(work)


def test_a_frozen_server_costs_every_call_its_timeout_and_no_more() -> None:
    async def work() -> None:
        async with store_at(server.port, "freeze") as store, Load(store) as load:
            for _ in range(2):
                server.freeze()
                await load.failure()
                await load.failure()
                server.thaw()
                await load.more(500)
        check(load)
        assert set(load.errors) <= {"StoreTimeoutError", "StoreUnavailableError"}

    with Server() as server:
        run(work)


def test_a_server_that_was_never_there() -> None:
    async def work() -> None:
        async with store_at(1, "nowhere") as store:
            started = time.monotonic()
            with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1") as caught:
                await store.set("k", b"v")
            assert time.monotonic() - started < LIMIT + GRACE
            assert not caught.value.outcome_unknown
            assert (caught.value.store, caught.value.operation) == ("ValkeyStore/nowhere", "set")
            assert not (await store.ping()).ok

    run(work)


def test_a_server_that_does_not_answer_is_named() -> None:
    async def work() -> None:
        with Server() as server:
            server.freeze()
            async with store_at(server.port, "slow", connect_timeout=0.2, command_timeout=2.0, retries=0) as store:
                with pytest.raises(
                    StoreUnavailableError, match=f"no connection to {server.address} .* within 0.2 s: .*did not answer"
                ):
                    await store.get("k")

    run(work)


def test_connections_that_the_server_kills() -> None:
    async def work() -> None:
        server = shared()
        # Kills follow one another so fast that they may hit one call several times.
        async with store_at(server.port, "client-kill", retries=20) as store, Load(store) as load:
            for _ in range(20):
                await asyncio.to_thread(server.ask, "CLIENT", "KILL", "TYPE", "normal")
                await load.more(100)
        check(load)
        assert not load.errors, "lost connections are repeated"

    run(work)


def test_what_may_not_be_repeated_is_not_and_says_so() -> None:
    async def work() -> None:
        server = shared()
        async with Proxy(server.port) as proxy, store_at(proxy.port, "once") as store:
            await store.delete_all()
            calls: dict[str, Callable[[], Awaitable[Any]]] = {
                "increment": lambda: store.increment("n"),
                "add": lambda: store.add("a", b"1"),
                "pop": lambda: store.pop("p"),
                "compare_and_set": lambda: store.compare_and_set("r", None, b"1"),
            }
            await store.set("p", b"1")
            await store.compare_and_set("w", None, b"1")
            for name, call in calls.items():
                await store.exists("w")
                proxy.cut_after = 0
                with pytest.raises(StoreUnavailableError) as caught:
                    await call()
                assert caught.value.outcome_unknown, name
                assert caught.value.operation == name
            assert await store.get_many(["n", "a", "p", "r"]) == {"n": b"1", "a": b"1", "r": b"1"}
            proxy.cut_after = 0
            assert await store.get("n") == b"1", "reading is repeated"

    run(work)


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+OK\r\n" * 3, b"\x00\x01\r\n"])
def test_garbage_in_place_of_a_reply(garbage: bytes) -> None:
    async def work() -> None:
        async with Proxy(shared().port) as proxy, store_at(proxy.port, "garbage") as store:
            await store.set("k", b"v")
            proxy.garbage = garbage
            # What looks like a reply is one; whatever follows it must not become anybody's.
            assert await store.get("k") in (b"v", b"OK")
            results = await asyncio.gather(*(store.get("k") for _ in range(20)))
            assert results == [b"v"] * 20
            assert proxy.connections == 2

    run(work)


def test_replies_that_are_cut_in_the_middle() -> None:
    async def work() -> None:
        value = random.Random(1).randbytes(3000)
        async with Proxy(shared().port) as proxy, store_at(proxy.port, "cut") as store:
            await store.set_many({f"k{i}": value for i in range(10)})
            for size in range(1, 30_000, 1777):
                proxy.cut_after = size
                results = await asyncio.gather(*(store.get(f"k{i}") for i in range(10)))
                assert results == [value] * 10

    run(work)


def test_slow_replies_time_out_alone() -> None:
    async def work() -> None:
        async with Proxy(shared().port) as proxy, store_at(proxy.port, "slow", retries=0) as store:
            await store.set("k", b"v")
            proxy.delay = 0.2
            assert await store.get("k") == b"v"
            proxy.delay = 0.9
            with pytest.raises(StoreTimeoutError) as caught:
                await store.set("k", b"w")
            assert caught.value.outcome_unknown
            proxy.delay = 0

            async def answered() -> bool:
                try:
                    return await store.get("k") == b"w"
                except StoreError:
                    return False

            async with asyncio.timeout(5):
                while not await answered():
                    await asyncio.sleep(0.02)

    run(work)


@pytest.mark.slow
def test_ten_thousand_random_cancellations() -> None:
    async def work() -> None:
        rng = random.Random(7)
        server = shared()
        async with store_at(server.port, "cancel", command_timeout=20.0) as store:
            values = {f"k{i}": b"value %d " % i * rng.randrange(1, 200) for i in range(100)}
            await store.set_many(values)
            cancelled = 0
            while cancelled < 10_000:
                keys = [rng.choice(list(values)) for _ in range(200)]
                tasks = [asyncio.ensure_future(store.get(key)) for key in keys]
                for _ in range(rng.randrange(3)):
                    await asyncio.sleep(0)
                for victim in rng.sample(range(200), 150):
                    cancelled += tasks[victim].cancel()
                for key, task in zip(keys, tasks, strict=True):
                    try:
                        assert await task == values[key]
                    except asyncio.CancelledError:
                        continue
            waits = [asyncio.wait_for(store.get(key), rng.random() * 0.002) for key in list(values) * 50]
            for key, result in zip(
                list(values) * 50, await asyncio.gather(*waits, return_exceptions=True), strict=True
            ):
                assert result == values[key] or isinstance(result, TimeoutError)
            assert await store.get_many(values) == values

    run(work)


@pytest.mark.slow
def test_a_reply_of_50_megabytes_between_small_ones() -> None:
    async def work() -> None:
        big = os.urandom(1 << 20) * 50
        server = shared()
        async with store_at(server.port, "big", command_timeout=30.0) as store:
            await store.set("big", big)
            await store.set_many({f"k{i}": b"%d" % i for i in range(100)})
            calls = [store.get(f"k{i}") for i in range(50)]
            calls.insert(25, store.get("big"))
            results = await asyncio.gather(*calls)
            assert results.pop(25) == big
            assert results == [b"%d" % i for i in range(50)]
            await store.delete_all()

    run(work)


def test_two_thousand_calls_at_once_where_twenty_clients_are_allowed() -> None:
    async def work() -> None:
        async with store_at(server.port, "crowd", command_timeout=10.0) as store:
            await asyncio.gather(*(store.set(f"k{i}", b"%d" % i) for i in range(2000)))
            found = await asyncio.gather(*(store.get(f"k{i}") for i in range(2000)))
            assert found == [b"%d" % i for i in range(2000)]
            clients = server.ask("CLIENT", "LIST").count(b" name=storeconf ")
            assert clients == 1

    with Server(maxclients=20) as server:
        run(work)


def test_a_server_that_takes_no_more_clients_is_told_as_it_is() -> None:
    async def work() -> None:
        crowd = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
        async with store_at(server.port, "full") as store:
            for _ in range(30):
                with pytest.raises(StoreUnavailableError, match=f"{server.address} .*max number of clients reached"):
                    await store.get("k")
            for _, writer in crowd:
                writer.close()
                await writer.wait_closed()
            async with asyncio.timeout(5):
                while not (await store.ping()).ok:
                    await asyncio.sleep(0.02)
            await store.set("k", b"v")

    with Server(maxclients=3) as server:
        run(work)


def test_memory_that_is_full() -> None:
    async def work() -> None:
        async with store_at(server.port, "oom") as store:
            await store.set("small", b"old")

            async def fill() -> None:
                for number in range(1000):
                    await store.set(f"k{number}", b"x" * 50_000)

            with pytest.raises(StoreError, match="OOM") as caught:
                await fill()
            assert not caught.value.outcome_unknown
            with pytest.raises(StoreError, match="OOM"):
                await store.set("small", b"new" * 50_000)
            assert await store.get("small") == b"old"
            await store.delete_all()
            await store.set("small", b"new")

    with Server(maxmemory="8mb", maxmemory_policy="noeviction") as server:
        run(work)


def test_memory_stays_bounded_when_the_server_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with (
            Proxy(shared().port) as proxy,
            store_at(proxy.port, "stall", retries=0, command_timeout=2.0) as store,
        ):
            await store.set("k", b"v")
            proxy.reading.clear()
            value = b"x" * 100_000
            first = [asyncio.ensure_future(store.set(f"k{i % 5}", value)) for i in range(300)]
            await asyncio.sleep(0.1)
            later = (store.set(f"k{i % 5}", value) for i in range(500))
            outcomes = await asyncio.gather(*first, *later, return_exceptions=True)
            refused = [e for e in outcomes if isinstance(e, StoreUnavailableError) and "send buffer" in str(e)]
            assert len(refused) == 500
            assert not any(error.outcome_unknown for error in refused)
            assert all(isinstance(error, StoreError) for error in outcomes)
            proxy.reading.set()
            async with asyncio.timeout(5):
                while not (await store.ping()).ok:
                    await asyncio.sleep(0.02)
            await store.set("k", b"w")
            assert await store.get("k") == b"w"

    monkeypatch.setattr(connections, "MOST_WAITING", 8 << 20)
    run(work)


def test_memory_stays_bounded_when_calls_come_one_turn_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        with Server() as server:
            async with store_at(server.port, "stall", retries=0, command_timeout=5.0) as store:
                await store.set("k", b"v")
                server.freeze()
                value = b"x" * 100_000
                calls = []
                for _ in range(300):
                    calls.append(asyncio.ensure_future(store.set("k", value)))
                    await asyncio.sleep(0)
                await asyncio.sleep(0)
                refused = [call for call in calls if call.done()]
                assert len(refused) > 100
                assert all(isinstance(call.exception(), StoreUnavailableError) for call in refused)
                server.thaw()
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
                assert outcomes.count(None) == 300 - len(refused)

    monkeypatch.setattr(connections, "MOST_WAITING", 8 << 20)
    run(work)


def test_a_value_longer_than_may_wait_goes_through_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with store_at(shared().port, "long", retries=0, command_timeout=5.0) as store:
            await store.set("k", b"x" * 100_000)
            assert len(await store.get("k") or b"") == 100_000

    monkeypatch.setattr(connections, "MOST_WAITING", 50_000)
    run(work)


def test_a_repetition_that_is_refused_leaves_unknown_what_came_before() -> None:
    async def work() -> None:
        with Server() as server:
            async with Proxy(server.port) as proxy, store_at(proxy.port, "again", command_timeout=5.0) as store:
                await store.set("k", b"old")
                proxy.cut_after = 0
                call = asyncio.ensure_future(store.set("k", b"new"))
                await proxy.have_cut.wait()
                server.ask("CONFIG", "SET", "maxmemory", 1)
                with pytest.raises(StoreError, match="OOM") as caught:
                    await call
                assert caught.value.outcome_unknown
                assert await store.get("k") == b"new"

    run(work)


def test_a_stalled_loop_is_no_slow_server() -> None:
    """What the application itself holds up does not time out."""

    async def work() -> None:
        async with store_at(shared().port, "stalled") as store:
            call = asyncio.ensure_future(store.get("k"))
            await asyncio.sleep(0)
            time.sleep(LIMIT * 1.5)
            assert await call is None

    run(work)


def test_a_forked_child_has_its_own_connection() -> None:
    async def work(store: RedisStore, value: bytes) -> bytes | None:
        async with store:
            await store.set("k", value)
            return await store.get("k")

    store = RedisStore.with_client(shared().url, namespace="fork")
    with asyncio.Runner() as runner:
        runner.run(store.__aenter__())
        runner.run(store.set("k", b"parent"))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                asyncio.run(asyncio.wait_for(work(store, b"child"), 5))
                code = 0
            finally:
                os.kill(os.getpid(), signal.SIGKILL if code else signal.SIGTERM)
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGTERM
        assert runner.run(store.get("k")) == b"child"
        runner.run(store.aclose())
