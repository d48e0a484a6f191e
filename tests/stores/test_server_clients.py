"""Clients that applications hand in: the libraries' own, their subclasses, fakes; loops that come and go."""

from __future__ import annotations

import asyncio
import gc
import inspect
import subprocess
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.asyncio
import valkey
import valkey.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from storeconf import PluginError, StoreClosedError, StoreError, StoreUnavailableError, StoreValueError
from storeconf.stores import RedisStore, ValkeyStore
from storeconf.stores.resp import driver
from storeconf.stores.resp.cluster import ClusterTransport
from storeconf.stores.resp.driver import load_driver
from storeconf.stores.resp.errors import DRIVER_ERRORS, ReplyError, TransportError, from_driver, translate
from storeconf.stores.resp.options import ServerOptions
from storeconf.stores.resp.sentinel import SentinelTransport
from storeconf.stores.resp.transport import StandaloneTransport
from storeconf.stores.resp.transports import CustomClientTransport
from tests.servers import cluster, sentinels, shared

if TYPE_CHECKING:
    from storeconf.stores.resp.store import ServerStore


QUIET: dict[str, Any] = load_driver("redis").quiet
"""Keeps redis-py from looking for its version on the disk for each connection, which stops the loop."""


class OwnRedis(redis.asyncio.Redis):
    """A class that is the application's, with behaviour that nobody but it knows."""

    commands = 0

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        type(self).commands += 1
        return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # the library's


async def round_trip(store: ServerStore) -> None:
    await store.delete_all()
    await store.set("k", "v", 100)
    assert await store.get("k") == b"v"
    assert await store.get("k", renew_for=200) == b"v"
    assert await store.expires_in("k") == 200
    assert await store.get("none") is None
    assert await store.add("k", "w") is False
    assert await store.add("a", "w") is True
    assert await store.touch("a", None) is True
    assert await store.touch("a", 10) is True
    assert await store.touch("none", 10) is False
    assert await store.compare_and_set("k", b"v", b"w", keep_ttl=True) is True
    assert await store.get_with_expiry("none") is None
    value, left = await store.get_with_expiry("k") or (None, 0)
    assert value == b"w"
    assert 190 < (left or 0) <= 200
    assert await store.increment("n", 1 << 62) == 1 << 62
    assert await store.increment("m", -3, expires_in=10) == -3
    with pytest.raises(StoreValueError, match="decimal integer"):
        await store.increment("k")
    assert await store.pop("k") == b"w"
    assert await store.pop("k") is None
    await store.set_many({"x": "1", "y": "2"}, 10)
    assert await store.get_many(["x", "y", "z"]) == {"x": b"1", "y": b"2"}
    await store.delete_many(["x", "z"])
    assert await store.exists("x") is False
    assert {key async for key in store.keys()} == {"a", "n", "m", "y"}
    assert (await store.ping()).ok
    await store.delete_all()
    assert [key async for key in store.keys()] == []


def lane_of(store: ServerStore) -> object:
    return store._transports.last


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("library", ["redis", "valkey"])
def test_the_libraries_own_clients(library: str, decode: bool, protocol: int) -> None:
    async def work() -> None:
        kind = {"redis": RedisStore, "valkey": ValkeyStore}[library]
        made: Any = {"redis": redis.asyncio.Redis, "valkey": valkey.asyncio.Valkey}[library]
        client = made.from_url(shared().url, decode_responses=decode, protocol=protocol)
        async with kind(client, namespace=f"own-{library}-{decode}-{protocol}") as store:
            await round_trip(store)
            assert isinstance(lane_of(store), StandaloneTransport)
        assert await client.ping(), "a borrowed client stays open"
        await client.aclose()

    asyncio.run(work())


def test_a_client_of_another_class_is_asked_itself() -> None:
    async def work() -> None:
        for decode in (False, True):
            client = OwnRedis.from_url(shared().url, decode_responses=decode, **QUIET)
            before = OwnRedis.commands
            async with RedisStore(redis=client, namespace="foreign") as store:
                await round_trip(store)
                await asyncio.gather(*(store.set(f"k{i}", b"v") for i in range(500)))
                every = bytes(range(256))
                await store.set("bytes", every)
                assert await store.get_many(["bytes"]) == {"bytes": every}
                assert await store.get("bytes", renew_for=5) == every
                assert await store.get_with_expiry("bytes") == (every, None)
                assert await store.pop("bytes") == every
                assert isinstance(lane_of(store), CustomClientTransport)
                assert "OwnRedis" in str((await store.ping()).server)
                await store.delete_all()
            assert OwnRedis.commands > before + 500
            await client.aclose()

    asyncio.run(work())


class OwnPool(redis.asyncio.ConnectionPool):
    """A pool that is the application's; it might fetch credentials, or choose among servers."""

    asked = 0

    async def get_connection(self, *args: Any, **options: Any) -> Any:
        self.asked += 1
        return await super().get_connection(*args, **options)  # type: ignore[no-untyped-call]  # the library's


def test_a_pool_of_another_class_is_asked_itself() -> None:
    async def work() -> None:
        pool = OwnPool.from_url(shared().url, **QUIET)
        client = redis.asyncio.Redis.from_pool(pool)
        async with RedisStore(redis=client, namespace="foreign") as store:
            await round_trip(store)
        assert pool.asked > 20
        await client.aclose()

    asyncio.run(work())


def test_a_client_that_repeats_by_itself_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    RedisStore(redis=OwnRedis(retry=Retry(NoBackoff(), 0)), namespace="foreign")
    RedisStore(redis=redis.asyncio.Redis(retry=Retry(NoBackoff(), 3)), namespace="ours")
    assert not caplog.records
    RedisStore(redis=OwnRedis(retry=Retry(NoBackoff(), 3)), namespace="foreign")
    assert "may count twice" in caplog.text


def test_a_foreign_client_whose_server_is_gone() -> None:
    async def work() -> None:
        client = OwnRedis.from_url("redis://127.0.0.1:1", **QUIET)
        async with RedisStore(redis=client, namespace="foreign") as store:
            with pytest.raises(StoreUnavailableError):
                await store.get("k")
        await client.aclose()

    asyncio.run(work())


def test_clients_of_clusters() -> None:
    async def work(port: int) -> None:
        for kind, made in (
            (RedisStore, redis.asyncio.RedisCluster(host="127.0.0.1", port=port)),
            (ValkeyStore, valkey.asyncio.ValkeyCluster(host="127.0.0.1", port=port)),
        ):
            async with kind(made, namespace="cluster", handle_client_shutdown=True) as store:
                await round_trip(store)
                assert isinstance(lane_of(store), ClusterTransport)

        class OwnCluster(redis.asyncio.RedisCluster):
            pass

        async with RedisStore(OwnCluster(host="127.0.0.1", port=port, **QUIET), "cluster", True) as store:
            await round_trip(store)
            assert isinstance(lane_of(store), CustomClientTransport)

    with cluster() as nodes:
        asyncio.run(work(nodes[1].port))


def test_clients_of_sentinels() -> None:
    async def work() -> None:
        nodes = [("127.0.0.1", node.port) for node in watched.sentinels]
        libraries: list[tuple[Any, Any]] = [(RedisStore, redis.asyncio), (ValkeyStore, valkey.asyncio)]
        for kind, library in libraries:
            sentinel = library.Sentinel(nodes, sentinel_kwargs={"password": "hunter2"})
            async with kind(sentinel.master_for("shop"), namespace="watched") as store:
                await round_trip(store)
                assert isinstance(lane_of(store), SentinelTransport)
            for client in sentinel.sentinels:
                await client.aclose()

    with sentinels(count=1, password="hunter2") as watched:
        asyncio.run(work())


def test_what_is_no_client() -> None:
    with pytest.raises(TypeError, match=r"a client of redis\.asyncio is needed, not str"):
        RedisStore("redis://localhost")
    for client in (redis.Redis(), valkey.Valkey()):
        for store in (RedisStore, ValkeyStore):
            with pytest.raises(TypeError, match="asyncio"):
                store(client)


def test_an_owned_client_is_closed_and_the_store_can_be_opened_again() -> None:
    client = redis.asyncio.Redis.from_url(shared().url)
    store = RedisStore(redis=client, namespace="owned", handle_client_shutdown=True)

    async def work() -> None:
        async with store:
            await round_trip(store)
        with pytest.raises(StoreClosedError):
            await store.get("k")

    asyncio.run(work())
    asyncio.run(work())


@pytest.mark.parametrize("kind", [RedisStore, ValkeyStore])
def test_what_with_client_is_given_by_position_or_by_name(kind: type[RedisStore] | type[ValkeyStore]) -> None:
    url, port = "redis://127.0.0.1", shared().port

    async def work() -> None:
        async with kind.with_client(url, 3, port, None, None, "positions") as store:
            await store.set("k", "v")
        async with kind.with_client(
            url=url, db=3, port=port, username=None, password=None, namespace="positions"
        ) as store:
            assert await store.get("k") == b"v"
        assert shared().ask("EXISTS", "positions::k") == b":0\r\n"  # that is database 0

    asyncio.run(work())


def test_a_missing_library_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_drivers", {})
    monkeypatch.setitem(sys.modules, "valkey.asyncio", None)
    with pytest.raises(PluginError, match=r"pip install 'storeconf\[valkey\]'"):
        ValkeyStore.with_client("valkey://localhost")


def test_nothing_of_the_libraries_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys, storeconf.backends.server as r, storeconf.stores.resp.store\n"
        "r.RedisBackend(url='redis://localhost', namespace='n')\n"
        "assert not {'redis', 'valkey'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, storeconf.stores.resp.store as r; assert not {'pydantic', 'yaml'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize("library", [redis, valkey])
def test_every_error_of_the_libraries_has_its_meaning(library: Any) -> None:
    kinds = {
        kind
        for place in (library, library.exceptions)
        for kind in vars(place).values()
        if inspect.isclass(kind) and issubclass(kind, Exception) and kind.__module__.startswith(library.__name__)
    }
    assert len(kinds) > 20
    assert {kind.__name__ for kind in kinds} <= set(DRIVER_ERRORS)
    for kind in kinds:
        error = kind.__new__(kind)
        error.args = ("what it says",)
        meaning = from_driver(error, "the client")
        assert isinstance(meaning, ReplyError | TransportError)
        assert isinstance(translate(meaning, writes=True), StoreError)


def test_only_what_was_sent_is_of_unknown_outcome() -> None:
    assert not translate(ReplyError("ERR"), writes=True).outcome_unknown
    lost = from_driver(redis.ConnectionError("gone"), "the client")
    assert isinstance(lost, TransportError)
    assert translate(lost, writes=True).outcome_unknown
    assert not translate(lost, writes=False).outcome_unknown


def test_error_texts_hold_no_arguments() -> None:
    error = ReplyError("ERR unknown command 'AUTHX', with args beginning with: 'user' 'hunter2' ")
    assert "hunter2" not in str(translate(error, writes=True))


def test_a_key_that_holds_something_else() -> None:
    async def work() -> None:
        client = redis.asyncio.Redis.from_url(shared().url)
        async with RedisStore(redis=client, namespace="types") as store:
            await client.delete("types::list")
            await client.rpush("types::list", "a")
            for call in (store.get("list"), store.get("list", 10), store.increment("list"), store.pop("list")):
                with pytest.raises(StoreValueError, match="a non-string value"):
                    await call
            assert await client.llen("types::list") == 1
            await store.delete_all()
            assert not await client.exists("types::list")
        await client.aclose()

    asyncio.run(work())


# ---------------------------------------------------------------------- loops


def test_loops_come_and_go() -> None:
    store = RedisStore.with_client(shared().url, namespace="loops")

    async def work(number: int) -> None:
        await store.set("k", b"%d" % number)
        assert await store.get("k") == b"%d" % number

    async def held() -> None:
        async with store:
            for number in range(5):
                await asyncio.to_thread(asyncio.run, work(number))
            assert len(store._transports) <= 1, "loops that are gone leave nothing behind"
            await work(7)

    asyncio.run(held())
    asyncio.run(held())
    gc.collect()


def test_loops_of_several_threads_at_once() -> None:
    store = RedisStore.with_client(shared().url, namespace="threads")

    async def work(number: int) -> None:
        for turn in range(200):
            await store.set(f"k{number}", b"%d" % turn)
            assert await store.get(f"k{number}") == b"%d" % turn

    async def main() -> None:
        async with store:
            await asyncio.gather(*(asyncio.to_thread(asyncio.run, work(number)) for number in range(6)), work(6))
            await store.delete_all()

    asyncio.run(main())


def test_closing_ends_the_connections_of_other_loops() -> None:
    store = RedisStore.with_client(shared().url, namespace="others")
    used, closed = threading.Event(), threading.Event()
    seen: list[BaseException | None] = []

    async def other() -> None:
        await store.set("k", b"v")
        used.set()
        await asyncio.to_thread(closed.wait)
        try:
            await store.get("k")
        except StoreClosedError as error:
            seen.append(error)

    async def main() -> None:
        async with store:
            await asyncio.to_thread(used.wait)

    thread = threading.Thread(target=asyncio.run, args=(other(),))
    thread.start()
    asyncio.run(main())
    closed.set()
    thread.join()
    assert len(seen) == 1


def test_a_loop_keeps_its_new_connections_when_its_old_ones_end() -> None:
    store = RedisStore.with_client(shared().url, namespace="again")
    used, reopened = threading.Event(), threading.Event()

    async def other() -> bytes | None:
        await store.set("k", b"v")
        used.set()
        reopened.wait()  # without giving way: the old connections end after the new ones have been asked for
        return await store.get("k")

    async def main() -> bytes | None:
        async with asyncio.timeout(20):
            working = asyncio.create_task(asyncio.to_thread(asyncio.run, other()))
            async with store:
                await asyncio.to_thread(used.wait)
            async with store:
                reopened.set()
                return await working

    assert asyncio.run(main()) == b"v"


def test_a_store_that_is_left_open_says_so() -> None:
    async def work() -> None:
        store = RedisStore.with_client(shared().url, namespace="left")
        await store.set("k", b"v")
        del store
        with pytest.warns(ResourceWarning, match="was left open"):
            gc.collect()
        await asyncio.sleep(0.01)

    asyncio.run(work())


def test_a_closed_loop_leaves_no_warning_but_that_of_the_store() -> None:
    store = RedisStore.with_client(shared().url, namespace="left")
    asyncio.run(store.set("k", b"v"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()
        asyncio.run(store.aclose())
        gc.collect()


def test_several_connections_for_one_store() -> None:
    async def work() -> None:
        options = ServerOptions(url=shared().url, max_connections=3, client_name="three")
        async with ValkeyStore.from_options(options, namespace="three") as store:
            await asyncio.gather(*(store.set(f"k{i}", b"v" * 1000) for i in range(300)))
            clients = await asyncio.to_thread(shared().ask, "CLIENT", "LIST")
            assert clients.count(b" name=three ") == 3
            await round_trip(store)

    asyncio.run(work())
