"""What a server's refusals become: which class of error, with which code, and whether the outcome is known."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from storeconf import (
    StoreError,
    StoreReadOnlyError,
    StoreRefusedError,
    StoreTimeoutError,
    StoreUnavailableError,
    UnsupportedOperationError,
)
from storeconf.stores import RedisStore
from storeconf.stores.resp.errors import ReplyError, translate
from storeconf.stores.resp.options import ServerOptions
from tests.servers import KINDS, Server, wait_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param) as server:
        yield server


def store_at(server: Server, namespace: str = "shop", **settings: Any) -> RedisStore:
    options = ServerOptions(url=server.url, **{"retries": 0, **settings})
    return RedisStore.from_options(options, namespace=namespace)


class OwnClient(redis.asyncio.Redis):
    """A client that is called through its own methods."""


def through_a_client(server: Server, **settings: Any) -> RedisStore:
    client = OwnClient(host="127.0.0.1", port=server.port, retry=Retry(NoBackoff(), 0), **settings)
    return RedisStore(client, namespace="shop", handle_client_shutdown=True)


WAYS = pytest.mark.parametrize("make", [store_at, through_a_client])

WRITES: dict[str, Callable[[RedisStore], Awaitable[Any]]] = {
    "set": lambda store: store.set("k", b"new" * 100),
    "set_many": lambda store: store.set_many({"k": b"new", "l": b"new"}),
    "increment": lambda store: store.increment("n"),
    "increment in a script": lambda store: store.increment("m", expires_in=60),
    "compare_and_set in a script": lambda store: store.compare_and_set("k", b"old", b"new"),
    "add": lambda store: store.add("a", b"new"),
}


async def refused(store: RedisStore, code: str, but: tuple[str, ...] = ()) -> None:
    for name, write in WRITES.items():
        if name in but:
            continue
        with pytest.raises(StoreRefusedError) as caught:
            await write(store)
        assert caught.value.code == code, name
        assert not caught.value.outcome_unknown, name
        assert not isinstance(caught.value, StoreReadOnlyError)
        assert caught.value.operation == name.partition(" ")[0]
        assert code in str(caught.value)
        assert "user_script" not in str(caught.value)
    assert await store.get_many(["k", "l", "m", "n", "a"]) == {"k": b"old"}


async def refused_while(
    make: Callable[[Server], RedisStore],
    server: Server,
    code: str,
    change: tuple[str, ...],
    undo: tuple[str, ...],
    but: tuple[str, ...] = (),
) -> None:
    """Check what writes become after the command ``change``, and that all is well again after ``undo``."""
    async with make(server) as store:
        await store.delete_all()
        await store.set("k", b"old")
        assert server.ask(*change) == b"+OK\r\n"
        try:
            await refused(store, code, but)
        finally:
            assert server.ask(*undo) == b"+OK\r\n"
        await store.set("k", b"new")


@WAYS
def test_a_server_whose_memory_is_full(server: Server, make: Callable[[Server], RedisStore]) -> None:
    change = ("CONFIG", "SET", "maxmemory", "1")
    asyncio.run(refused_while(make, server, "OOM", change, (*change[:3], "0")))


@WAYS
def test_a_server_that_misses_its_replicas(server: Server, make: Callable[[Server], RedisStore]) -> None:
    change = ("CONFIG", "SET", "min-replicas-to-write", "1")
    # Redis 6.2 does not look for replicas in a script.
    but = tuple(name for name in WRITES if "script" in name) if server.kind == "redis-6.2" else ()
    asyncio.run(refused_while(make, server, "NOREPLICAS", change, (*change[:3], "0"), but))


@WAYS
def test_a_replica(server: Server, make: Callable[[Server], RedisStore]) -> None:
    """It serves what it has, for the primary that it was told of can't be reached."""
    change = ("REPLICAOF", "127.0.0.1", "1")
    asyncio.run(refused_while(make, server, "READONLY", change, ("REPLICAOF", "NO", "ONE")))


@WAYS
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_can_not_save(kind: str, make: Callable[[Server], RedisStore]) -> None:
    async def work(server: Server) -> None:
        async with make(server) as store:
            await store.set("k", b"old")
            shutil.rmtree(server.directory)
            server.ask("BGSAVE")
            wait_for(lambda: b"rdb_last_bgsave_status:err" in server.ask("INFO", "persistence"), "a failed save")
            await refused(store, "MISCONF")
        # A new connection is greeted with it too.
        async with make(server) as store:
            assert await store.get("k") == b"old"
            await refused(store, "MISCONF")

    with Server(kind) as server:
        server.ask("CONFIG", "SET", "save", "3600 1000000")
        asyncio.run(work(server))


def test_a_script_on_a_server_that_became_a_replica_is_repeated(server: Server) -> None:
    """Nothing was executed, so that even what may not happen twice is sent again: to whoever is primary then."""

    async def work() -> None:
        async with store_at(server, retries=10) as store:
            await store.delete_all()
            server.ask("REPLICAOF", "127.0.0.1", "1")
            call = asyncio.ensure_future(store.increment("n", expires_in=60))
            done, _ = await asyncio.wait([call], timeout=0.1)
            server.ask("REPLICAOF", "NO", "ONE")
            assert not done
            assert await call == 1

    asyncio.run(work())


# ---------------------------------------------------------------------- credentials and rights


@WAYS
def test_wrong_credentials_and_missing_rights_are_neither_outages_nor_refusals(
    server: Server, make: Callable[..., RedisStore]
) -> None:
    async def work() -> None:
        server.ask("ACL", "SETUSER", "few", "on", ">p", "~other:*", "+@all")
        server.ask("ACL", "SETUSER", "fewer", "on", ">p", "~shop:*", "+@all", "-set", "-incrby")
        server.ask("SET", "shop::k", "old")
        for login, text in [
            ({"username": "few", "password": "wrong"}, "WRONGPASS|invalid username"),
            ({"username": "few", "password": "p"}, "access"),
            ({"username": "fewer", "password": "p"}, "permissions|can't run"),
        ]:
            async with make(server, **login) as store:
                for name in ("set", "increment in a script", "compare_and_set in a script"):
                    with pytest.raises(StoreError, match=text) as caught:
                        await WRITES[name](store)
                    assert type(caught.value) is StoreError, name
                    assert not caught.value.outcome_unknown

    asyncio.run(work())


@WAYS
def test_a_missing_right_to_an_optional_command(server: Server, make: Callable[..., RedisStore]) -> None:
    async def work() -> None:
        server.ask("ACL", "SETUSER", "plain", "on", ">p", "~shop:*", "+@all", "-scan", "-@scripting", "-getdel")
        async with make(server, username="plain", password="p") as store:
            await store.set("k", b"v")
            calls: dict[str, Callable[[], Awaitable[Any]]] = {
                "keys": lambda: anext(aiter(store.keys())),
                "walk": lambda: anext(aiter(store.walk())),
                "delete_all": store.delete_all,
                "pop": lambda: store.pop("k"),
                "increment": lambda: store.increment("n", expires_in=5),
                "compare_and_set": lambda: store.compare_and_set("k", b"v", b"w"),
                "touch": lambda: store.touch("k", None),
                "get": lambda: store.get("k", renew_for=5),
            }
            for name, call in calls.items():
                with pytest.raises(UnsupportedOperationError) as caught:
                    await call()
                assert not caught.value.outcome_unknown, name
                assert caught.value.operation == name
            assert await store.get("k") == b"v"

    asyncio.run(work())


def test_pop_goes_by_a_script_where_getdel_is_forbidden(server: Server) -> None:
    async def work() -> None:
        server.ask("ACL", "SETUSER", "older", "on", ">p", "~shop:*", "+@all", "-getdel")
        async with store_at(server, username="older", password="p") as store:
            await store.set("k", b"v")
            assert await store.pop("k") == b"v"
            assert await store.pop("k") is None

    asyncio.run(work())


def test_a_server_that_is_busy_with_a_script_is_unavailable(server: Server) -> None:
    async def work() -> None:
        async with store_at(server) as store:
            await store.set("k", b"v")
            server.ask("CONFIG", "SET", "lua-time-limit", "10")
            asking = asyncio.ensure_future(asyncio.to_thread(server.ask, "EVAL", "while true do end", 0))
            try:
                async with asyncio.timeout(10):
                    while True:
                        try:
                            await store.set("k", b"v")
                        except StoreUnavailableError as error:
                            assert not isinstance(error, StoreRefusedError)  # noqa: PT017 - it comes some calls later
                            assert not error.outcome_unknown  # noqa: PT017
                            break
                        await asyncio.sleep(0.01)
            finally:
                server.ask("SCRIPT", "KILL")
                await asking

    asyncio.run(work())


def test_nothing_is_unknown_while_there_is_no_connection() -> None:
    """The server takes connections and says nothing: whatever is tried until the time is over is never sent."""
    calls: list[Callable[[RedisStore], Awaitable[Any]]] = [
        lambda store: store.set("k", b"v"),
        lambda store: store.increment("n"),
        lambda store: store.set_many({"k": b"v", "l": b"w"}),
        lambda store: store.delete_many(["k", "l"]),
    ]

    async def work(silent: Server) -> None:
        for call in calls:
            async with store_at(silent, retries=20, command_timeout=0.5, connect_timeout=0.2) as store:
                with pytest.raises((StoreUnavailableError, StoreTimeoutError)) as caught:
                    await call(store)
                assert not caught.value.outcome_unknown

    with Server() as silent:
        silent.freeze()
        asyncio.run(work(silent))


def test_a_client_that_finds_no_server_has_sent_nothing() -> None:
    async def work() -> None:
        with Server() as server:
            store = through_a_client(server)
        async with store:
            for write in WRITES.values():
                with pytest.raises(StoreUnavailableError) as caught:
                    await write(store)
                assert not caught.value.outcome_unknown

    asyncio.run(work())


@pytest.mark.parametrize(
    "text",
    [
        "OOM command not allowed when used memory > 'maxmemory'.",
        "OOM command not allowed when used memory > 'maxmemory'. script: 5f, on @user_script:3.",
        "OOM command not allowed when used memory > 'maxmemory'. script: on @user_script:3.",
        "ERR Error running script (call to f_5f): @user_script:3: @user_script: 3: -OOM command not allowed",
        "Error running script (call to f_5f): @user_script:3: @user_script: 3: -OOM command not allowed",
        "EXECABORT Transaction discarded because of: OOM command not allowed",
    ],
)
def test_a_refusal_in_whatever_wraps_it(text: str) -> None:
    """As servers of several versions, and client libraries that cut off the first word, tell it."""
    error = translate(ReplyError(text), writes=True)
    assert isinstance(error, StoreRefusedError)
    assert error.code == "OOM"
    assert "script" not in str(error)
