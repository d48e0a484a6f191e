"""Credentials that change while a store is in use: read again for each connection, on every topology."""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

import storeconf
from storeconf import StoreError, StoreUnavailableError
from storeconf.stores import ValkeyStore
from storeconf.stores.resp.options import ServerOptions
from tests.servers import Server, cluster, sentinels

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from storeconf import Store, StoreRegistry


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("old-secret\n")
    return path


def set_user(server: Server, *rules: str, user: str = "shop", login: tuple[str, ...] = ()) -> None:
    assert server.ask("ACL", "SETUSER", user, *rules, login=login).startswith(b"+OK")


def new_user(server: Server) -> None:
    server.ask("ACL", "DELUSER", "shop")
    set_user(server, "on", ">old-secret", "~shop*", "+@all")


def rotate(server: Server, secret: Path) -> None:
    """Change the password on the server and in the file, and end the connections that were made with the old one."""
    secret.write_text("new-secret\n")
    set_user(server, ">new-secret", "<old-secret")
    server.ask("CLIENT", "KILL", "USER", "shop")


def load(store: dict[str, Any], environ: dict[str, str] | None = None) -> StoreRegistry:
    layout = {"stores": {"checkout": {"type": "valkey", "namespace": "shop", **store}}}
    return storeconf.load(layout, environ=environ or {})


async def failure(store: Store) -> StoreError:
    with pytest.raises(StoreError) as caught:
        await store.get("k")
    return caught.value


async def answers(store: Store, within: float = 5.0) -> None:
    """Wait until calls succeed again."""
    async with asyncio.timeout(within):
        while True:
            with suppress(StoreUnavailableError):
                await store.get("k")
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("way", ["field", "variable", "url", "whole url", "default factory"])
def test_a_rotated_password_is_read_again(way: str, server: Server, secret: Path) -> None:
    new_user(server)
    environ: dict[str, str] = {}
    store: dict[str, Any] = {"url": server.url, "username": "shop", "password": f"${{file:{secret}}}"}
    if way == "variable":
        environ["STORECONF__STORES__CHECKOUT__PASSWORD_FILE"] = str(secret)
        store["password"] = "from a lower layer"
    elif way == "url":
        store = {"url": f"valkey://shop:${{file:{secret}}}@{server.address}/0"}
    elif way == "whole url":
        secret.write_text(f"valkey://shop:old-secret@{server.address}/0")
        store = {"url": f"${{file:{secret}}}"}
    layout: dict[str, Any] = {"stores": {"checkout": {"type": "valkey", "namespace": "shop", **store}}}
    if way == "default factory":
        layout = {"stores": {}, "default_factory": {"type": "valkey", "namespace": "shop", **store}}

    async def work() -> None:
        registry = storeconf.load(layout, environ=environ)
        async with registry:
            await registry.get("checkout").set("k", b"v")
            rotate(server, secret)
            if way == "whole url":
                secret.write_text(f"valkey://shop:new-secret@{server.address}/0\n")
            await answers(registry.get("checkout"))
            assert await registry.get("checkout").get("k") == b"v"
        async with registry:
            assert await registry.get("checkout").get("k") == b"v"

    asyncio.run(work())


class Vault:
    """A resolver that gives what is in a file, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def resolve(self, argument: str, context: storeconf.ResolveContext) -> str:
        self.asked += 1
        path = context.directory / argument
        if not path.exists():
            raise LookupError(argument)
        return path.read_text().strip()


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_what_a_resolver_gives_is_read_again_at_most_once_a_second(
    kind: str, secret: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vault = Vault()
    catalog = storeconf.Catalog.builtin().with_resolver("vault", vault)
    with Server("valkey-9.1" if kind == "valkey" else "redis-8.2") as server:
        new_user(server)
        store = {"type": kind, "url": server.url, "namespace": "shop", "username": "shop"}
        layout = {"stores": {"checkout": {**store, "password": f"${{vault:{secret}}}"}}}

        async def work() -> None:
            registry = storeconf.read_layout(layout, environ={}, catalog=catalog).compile()
            async with registry:
                checkout = registry["checkout"]
                await checkout.set("k", b"v")
                rotate(server, secret)
                await answers(checkout)
                assert (await registry.reload()).kept == ("checkout",)
                asked = vault.asked
                secret.unlink()
                for _ in range(5):
                    server.ask("CLIENT", "KILL", "USER", "shop")
                    await answers(checkout)
                assert vault.asked <= asked + 1
                secret.write_text("wrong-secret")
                set_user(server, "resetpass", ">next-secret")
                await asyncio.sleep(1)
                server.ask("CLIENT", "KILL", "USER", "shop")
                error = await failure(checkout)
                assert f"${{vault:{secret}}}" in str(error)

        asyncio.run(work())
    assert "secret" not in caplog.text.replace(str(secret), "")


def test_a_rotated_user_is_read_again(server: Server, secret: Path, tmp_path: Path) -> None:
    new_user(server)
    (tmp_path / "user").write_text("shop\n")

    async def work() -> None:
        store = {"url": server.url, "username": f"${{file:{tmp_path}/user}}", "password": f"${{file:{secret}}}"}
        async with load(store) as registry:
            await registry["checkout"].set("k", b"v")
            set_user(server, "on", ">another", "~shop*", "+@all", user="shop-2")
            (tmp_path / "user").write_text("shop-2\n")
            secret.write_text("another")
            server.ask("ACL", "DELUSER", "shop")
            await answers(registry["checkout"])
            assert b"user=shop-2 " in server.ask("CLIENT", "LIST")

    asyncio.run(work())


def test_closing_and_opening_reads_it_again(server: Server, secret: Path) -> None:
    new_user(server)

    async def work() -> None:
        registry = load({"url": server.url, "username": "shop", "password": f"${{file:{secret}}}"})
        async with registry:
            await registry["checkout"].set("k", b"v")
        rotate(server, secret)
        async with registry:
            assert await registry["checkout"].get("k") == b"v"

    asyncio.run(work())


def test_a_refused_login_is_an_outage_only_after_an_accepted_one(
    server: Server, secret: Path, caplog: pytest.LogCaptureFixture
) -> None:
    new_user(server)
    secret.write_text("first-wrong")

    async def work() -> None:
        store = {"url": server.url, "username": "shop", "password": f"${{file:{secret}}}", "retries": 0}
        async with load(store) as registry:
            error = await failure(registry["checkout"])
            assert type(error) is StoreError
            for part in (str(secret), "WRONGPASS", server.address, "checkout"):
                assert part in str(error)
            assert not any(record.levelno >= logging.ERROR for record in caplog.records)
            secret.write_text("old-secret")
            async with asyncio.timeout(5):
                while type(await outcome(registry["checkout"])) is StoreError:
                    await asyncio.sleep(0.02)
            rotate(server, secret)
            secret.write_text("second-wrong")
            async with asyncio.timeout(5):
                while "refused the login" not in str(refused := await outcome(registry["checkout"])):
                    await asyncio.sleep(0.02)
            assert type(refused) is StoreUnavailableError
            for part in (str(secret), "WRONGPASS", server.address, "checkout"):
                assert part in str(refused)
            told = "".join(traceback.TracebackException.from_exception(refused, capture_locals=True).format())
            told += caplog.text
            assert not any(each in told for each in ("old-secret", "new-secret", "first-wrong", "second-wrong"))
            assert any(record.levelno == logging.ERROR for record in caplog.records)
            secret.write_text("new-secret")
            await answers(registry["checkout"])

    asyncio.run(work())


async def outcome(store: Store) -> object:
    try:
        return await store.get("k")
    except StoreError as error:
        return error


@pytest.mark.parametrize("what", ["missing", "empty", "a directory", "not text"])
def test_a_file_that_can_not_be_read_leaves_the_last_value(
    what: str, server: Server, secret: Path, caplog: pytest.LogCaptureFixture
) -> None:
    new_user(server)

    async def work() -> None:
        store = {"url": server.url, "username": "shop", "password": f"${{file:{secret}}}"}
        async with load(store) as registry:
            await registry["checkout"].set("k", b"v")
            secret.unlink()
            if what == "empty":
                secret.write_text("\n")
            elif what == "a directory":
                secret.mkdir()
            elif what == "not text":
                secret.write_bytes(b"\xff\xfe")
            server.ask("CLIENT", "KILL", "USER", "shop")
            await answers(registry["checkout"])
        (warning,) = {record.getMessage() for record in caplog.records if "stay as they were" in record.getMessage()}
        assert str(secret) in warning
        assert server.address in warning
        assert "checkout" in warning

    asyncio.run(work())


def test_a_url_that_leads_elsewhere_is_not_followed(
    server: Server, secret: Path, caplog: pytest.LogCaptureFixture
) -> None:
    new_user(server)
    secret.write_text(f"valkey://shop:old-secret@{server.address}/0")

    async def work() -> None:
        async with load({"url": f"${{file:{secret}}}"}) as registry:
            await registry["checkout"].set("k", b"v")
            secret.write_text(f"valkey://shop:old-secret@{server.address}/1")
            server.ask("CLIENT", "KILL", "USER", "shop")
            await answers(registry["checkout"])
            assert await registry["checkout"].get("k") == b"v"
        assert "differs in more than user and password" in caplog.text
        assert "old-secret" not in caplog.text

    asyncio.run(work())


def test_reading_that_hangs_holds_up_neither_the_store_nor_the_application(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    new_user(server)
    release = threading.Event()

    class Hanging:
        def read(self) -> str:
            release.wait()
            return "old-secret"

        def __str__(self) -> str:
            return "the file 'on a server that is gone'"

    async def work() -> None:
        options = ServerOptions(
            url=server.url,
            username="shop",
            password="old-secret",
            connect_timeout=0.4,
            sources={"password": Hanging()},
        )
        async with ValkeyStore.from_options(options, namespace="shop") as store:
            before = threading.active_count()
            for _ in range(4):
                await answers(store)
                server.ask("CLIENT", "KILL", "USER", "shop")
            assert threading.active_count() <= before + 1
            assert await asyncio.wait_for(asyncio.to_thread(int), 2) == 0
        assert "'on a server that is gone' can't be read: nothing came within 0.2 s" in caplog.text

    try:
        asyncio.run(work())
    finally:
        release.set()


@pytest.mark.parametrize("kind", ["valkey-9.1", pytest.param("redis-8.2", marks=pytest.mark.slow)])
def test_a_cluster(kind: str, secret: Path) -> None:
    with cluster(kind) as nodes:
        for node in nodes:
            new_user(node)

        async def work() -> None:
            store = {
                "type": kind.partition("-")[0],
                "cluster": [node.address for node in nodes],
                "username": "shop",
                "password": f"${{file:{secret}}}",
                "retries": 0,
            }
            async with load(store) as registry:
                await registry["checkout"].set_many({f"k{i}": b"v" for i in range(100)})
                for node in nodes:
                    rotate(node, secret)
                await answers(registry["checkout"])
                assert len(await registry["checkout"].get_many([f"k{i}" for i in range(100)])) == 100
                secret.write_text("wrong-secret")
                for node in nodes:
                    node.ask("CLIENT", "KILL", "USER", "shop")
                async with asyncio.timeout(5):
                    while "refused the login" not in str(error := await outcome(registry["checkout"])):
                        await asyncio.sleep(0.02)
                assert str(secret) in str(error)
                assert "wrong-secret" not in str(error)

        asyncio.run(work())


@pytest.mark.parametrize("kind", ["valkey-9.1", pytest.param("redis-8.2", marks=pytest.mark.slow)])
def test_sentinels_and_what_they_watch(kind: str, secret: Path, tmp_path: Path) -> None:
    of_sentinels = tmp_path / "of-sentinels"
    of_sentinels.write_text("old-secret")
    with sentinels(kind, count=1, password="old-secret") as watched:
        new_user(watched.primary)

        async def work() -> None:
            sentinel = {"nodes": watched.nodes, "service": "shop", "password": f"${{file:{of_sentinels}}}"}
            store = {"sentinel": sentinel, "username": "shop", "password": f"${{file:{secret}}}"}
            store["type"] = kind.partition("-")[0]
            async with load(store) as registry:
                await registry["checkout"].set("k", b"v")
                of_sentinels.write_text("wrong")
                (sentinel_server,) = watched.sentinels
                set_user(sentinel_server, ">new-secret", "<old-secret", user="default", login=("old-secret",))
                rotate(watched.primary, secret)
                async with asyncio.timeout(5):
                    while "refused the login" not in str(error := await outcome(registry["checkout"])):
                        await asyncio.sleep(0.02)
                assert type(error) is StoreUnavailableError
                assert str(of_sentinels) in str(error)
                of_sentinels.write_text("new-secret")
                await answers(registry["checkout"])
                assert await registry["checkout"].get("k") == b"v"

        asyncio.run(work())
