"""Making connections: after any outage again, and with errors that name server, store and reason."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import selectors
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

import storeconf
from storeconf import StoreError, StoreTimeoutError, StoreUnavailableError
from tests.proxy import Proxy
from tests.servers import Server, shared
from tests.stores.test_server_faults import store_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from storeconf import StoreRegistry
    from storeconf.stores import ValkeyStore

FAST = 300
"""How many times faster than the clock on the wall an outage passes here."""


class FastLoop(asyncio.SelectorEventLoop):
    """A loop whose time runs fast, so that timers of minutes end within a test."""

    def __init__(self) -> None:
        super().__init__(_FastSelector())

    def time(self) -> float:
        return time.monotonic() * FAST


class _FastSelector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(None if timeout is None else timeout / FAST)


async def attempts_fail(store: ValkeyStore, count: int) -> None:
    """Let a call after the other fail until the store has tried so often to connect."""
    loop = asyncio.get_running_loop()
    (connection,) = store._transports.here()._connections  # type: ignore[attr-defined]  # a standalone transport has them
    deadline = loop.time() + FAST * 30
    while connection._failures < count:
        assert loop.time() < deadline, f"{connection._failures} attempts"
        with suppress(StoreError):
            await store.get("k")
        await asyncio.sleep(0.3)


def test_a_store_reconnects_after_an_outage_of_any_length() -> None:
    server = Server()
    try:

        async def work() -> None:
            async with store_at(server.port, "outage", retries=0, command_timeout=300, connect_timeout=300) as store:
                await attempts_fail(store, 1100)
                server.start()
                async with asyncio.timeout(FAST * 10):
                    while True:
                        with suppress(StoreUnavailableError):
                            assert await store.get("k") is None
                            break
                        await asyncio.sleep(0.5)

        with asyncio.Runner(loop_factory=FastLoop) as runner:
            runner.run(work())
    finally:
        server.close()


def test_an_attempt_that_somebody_cancels_is_made_again() -> None:
    async def work() -> None:
        async with store_at(shared().port, "cancelled", retries=0) as store:
            before = asyncio.all_tasks()
            call = asyncio.ensure_future(store.get("k"))
            await asyncio.sleep(0)
            for task in asyncio.all_tasks() - before - {call}:
                task.cancel()
            with suppress(StoreUnavailableError):
                await call
            assert await store.get("k") is None

    asyncio.run(work())


def test_what_was_given_up_before_there_was_a_connection_is_never_sent() -> None:
    async def work() -> None:
        async with store_at(server.port, "given-up", retries=0, command_timeout=0.3, connect_timeout=10) as store:
            server.freeze()
            cancelled = asyncio.ensure_future(store.set("cancelled", b"v"))
            for number in range(3):
                with pytest.raises(StoreTimeoutError) as caught:
                    await store.set(f"late{number}", b"v")
                assert not caught.value.outcome_unknown
            again = asyncio.ensure_future(store.set("cancelled", b"v"))
            await asyncio.sleep(0)
            for call in (cancelled, again):
                call.cancel()
            await asyncio.wait([cancelled, again])
            server.thaw()
            await answers(store)
            assert [key async for key in store.keys()] == ["there"]

    async def answers(store: ValkeyStore) -> None:
        async with asyncio.timeout(10):
            while True:
                with suppress(StoreError):
                    return await store.set("there", b"v")

    with Server() as server:
        asyncio.run(work())


# ---------------------------------------------------------------------- what a failed attempt is told


def server_store(**settings: Any) -> StoreRegistry:
    settings = {"type": "valkey", "namespace": "shop", "retries": 0, "connect_timeout": 0.5, **settings}
    return storeconf.load({"stores": {"checkout": settings}}, environ={})


async def failed_attempt(**settings: Any) -> str:
    """Connect in vain; return the error, which names the store and is no leak, together with the log."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("storeconf.stores")
    logger.addHandler(handler)
    try:
        async with server_store(**settings) as registry:
            with pytest.raises(StoreError) as caught:
                await registry["checkout"].get("k")
    finally:
        logger.removeHandler(handler)
    assert lines
    for text in (str(caught.value), *lines):
        assert "checkout" in text
    return str(caught.value)


@contextlib.asynccontextmanager
async def listening(answer: bytes | None, *, first: bool = False) -> AsyncIterator[int]:
    """A port where a client gets ``answer`` and is then hung up on, by a reset where that is None."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            if not first:
                await reader.read(1)
            if answer is None:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
            else:
                writer.write(answer)
                writer.close()
                await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1") as listener:
        yield listener.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "first", "part"),
    [
        (None, False, "may expect TLS"),
        (None, True, "may expect TLS"),
        (b"", False, "may expect TLS"),
        (b"", True, "may expect TLS"),
        (b"\x15\x03\x01\x00\x02\x02\x46", False, "may expect TLS"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", False, "not RESP"),
        (b"-ERR max number of clients reached\r\n", True, "max number of clients reached"),
        (b"-ERR max number of clients + cluster connections reached\r\n", True, "max number of clients"),
        (b"-DENIED Redis is running in protected mode\r\n", True, "protected mode"),
    ],
)
@pytest.mark.parametrize("topology", ["standalone", "cluster", "sentinel"])
def test_whoever_hangs_up_is_named(answer: bytes | None, first: bool, part: str, topology: str) -> None:
    async def work() -> None:
        async with listening(answer, first=first) as port:
            address = f"127.0.0.1:{port}"
            where: dict[str, Any] = {"url": f"redis://{address}"}
            if topology == "cluster":
                where = {"cluster": [address]}
            elif topology == "sentinel":
                where = {"sentinel": {"nodes": [address], "service": "shop"}}
            for _ in range(3):
                error = await failed_attempt(**where)
                assert address in error
                assert part in error

    asyncio.run(work())


def test_a_server_at_its_client_limit_always_says_so() -> None:
    async def work() -> None:
        for number in range(60):
            error = await failed_attempt(
                url=f"redis://{server.address}", db=number % 2, client_name="" if number % 3 else "me"
            )
            assert server.address in error
            assert "max number of clients reached" in error

    with Server(maxclients=1) as server, socket.create_connection(("127.0.0.1", server.port)):
        asyncio.run(work())


@pytest.mark.parametrize("topology", ["standalone", "cluster", "sentinel", "socket"])
def test_nobody_there_is_told_with_address_and_reason(topology: str, tmp_path: Path) -> None:
    where: dict[str, Any] = {"url": "redis://127.0.0.1:1"}
    part = "127.0.0.1:1 (store 'checkout'): Connection refused"
    if topology == "cluster":
        where = {"cluster": ["127.0.0.1:1"]}
    elif topology == "sentinel":
        where = {"sentinel": {"nodes": ["127.0.0.1:1"], "service": "shop"}}
    elif topology == "socket":
        where = {"url": f"unix://{tmp_path}/none"}
        part = f"{tmp_path}/none (store 'checkout'): No such file or directory"
    assert part in asyncio.run(failed_attempt(**where))


def test_a_host_name_that_is_unknown() -> None:
    error = asyncio.run(failed_attempt(url="redis://nobody.invalid:7"))
    assert error.startswith("can't connect to nobody.invalid:7 (store 'checkout'): ")
    assert "ultiple" not in error


def test_a_name_server_that_hangs_does_not_hold_up_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(*_: object, **__: object) -> list[Any]:
        release.wait()
        return []

    async def work() -> None:
        before = set(threading.enumerate())
        for _ in range(8):
            error = await failed_attempt(url="redis://hanging.example", connect_timeout=0.05)
            assert "the host name was not resolved in time" in error
        assert len(set(threading.enumerate()) - before) == 1
        assert await asyncio.wait_for(asyncio.to_thread(int), 2) == 0

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        asyncio.run(work())
    finally:
        release.set()


def test_log_lines_name_server_and_store(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "storeconf.stores")
    with Server() as server:

        async def work() -> None:
            async with server_store(url=server.url) as registry:
                await registry["checkout"].get("k")
                await asyncio.to_thread(server.stop)
                for _ in range(3):
                    with suppress(StoreError):
                        await registry["checkout"].get("k")

        asyncio.run(work())
    lines = [record.getMessage() for record in caplog.records if record.name == "storeconf.stores"]
    assert {line.partition(" ")[0] for line in lines} == {"connected", "lost", "no"}
    assert all(f"{server.address} (store 'checkout')" in line for line in lines)


# ---------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, *, asks_clients: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    if asks_clients:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
def tls(authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
    """The files of a client, all in order."""
    issued = authority.issue_cert("client.example")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    return {f"{name}_file": str(tmp_path / f"{name}.pem") for name in ("ca", "cert", "key")}


def test_tls_to_a_port_without_it() -> None:
    error = asyncio.run(failed_attempt(url=shared().url.replace("redis:", "rediss:")))
    assert shared().address in error
    assert "TLS" in error


def test_no_tls_to_a_port_with_it(authority: trustme.CA) -> None:
    async def work() -> None:
        async with Proxy(shared().port, tls=server_context(authority)) as proxy:
            error = await failed_attempt(url=f"redis://127.0.0.1:{proxy.port}")
            assert f"127.0.0.1:{proxy.port}" in error
            assert "TLS" in error

    asyncio.run(work())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_missing_client_certificate(authority: trustme.CA, tls: dict[str, str], version: ssl.TLSVersion) -> None:
    context = server_context(authority, asks_clients=True)
    context.minimum_version = context.maximum_version = version

    async def work() -> None:
        async with Proxy(shared().port, tls=context) as proxy:
            url = f"rediss://127.0.0.1:{proxy.port}"
            for _ in range(5):
                error = await failed_attempt(url=url, tls={"ca_file": tls["ca_file"]})
                assert f"127.0.0.1:{proxy.port}" in error
                assert "client certificate" in error
            async with server_store(url=url, tls=tls) as registry:
                await registry["checkout"].set("k", b"v")
                assert await registry["checkout"].get("k") == b"v"

    asyncio.run(work())


@pytest.mark.parametrize(
    ("spoilt", "content", "part"),
    [
        ("ca", None, "No such file"),
        ("cert", None, "No such file"),
        ("key", None, "No such file"),
        ("ca", "no certificate", ""),
        ("cert", "no certificate", "holds no certificate"),
        ("key", "no key", "holds no private key"),
        ("key", "of another certificate", "another key"),
        ("key", "encrypted", "encrypted"),
        ("key", "encrypted, old format", "encrypted"),
    ],
)
@pytest.mark.parametrize("kind", ["redis", "valkey"])
@pytest.mark.parametrize("of_sentinels", [False, True])
def test_a_file_that_can_not_be_used_is_named(
    spoilt: str,
    content: str | None,
    part: str,
    kind: str,
    of_sentinels: bool,
    authority: trustme.CA,
    tls: dict[str, str],
) -> None:
    path = Path(tls[f"{spoilt}_file"])
    if content is None:
        path.unlink()
    elif content == "of another certificate":
        authority.issue_cert("another.example").private_key_pem.write_to_path(str(path))
    elif content.startswith("encrypted"):
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        form = serialization.PrivateFormat.PKCS8
        if "old" in content:
            form = serialization.PrivateFormat.TraditionalOpenSSL
        lock = serialization.BestAvailableEncryption(b"a pass phrase")
        path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, lock))
    else:
        path.write_text(content)
    where: dict[str, Any] = {"url": "rediss://127.0.0.1:1", "tls": tls}
    if of_sentinels:
        where = {"sentinel": {"nodes": ["127.0.0.1:1"], "service": "shop", "tls": tls}}

    async def work() -> None:
        started = time.monotonic()
        error = await failed_attempt(type=kind, connect_timeout=30, **where)
        assert time.monotonic() - started < 15, "at once"
        assert str(path) in error
        assert part in error
        assert "127.0.0.1:1" in error
        assert await asyncio.wait_for(asyncio.to_thread(int), 5) == 0

    asyncio.run(work())


def test_changed_certificates_count_for_the_next_connection(
    authority: trustme.CA, tls: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with Proxy(shared().port, tls=server_context(authority, asks_clients=True)) as proxy:
            url = f"rediss://127.0.0.1:{proxy.port}"
            async with server_store(url=url, tls=tls, retries=3) as registry:
                await registry["checkout"].get("k")
                good = Path(tls["key_file"]).read_text()
                Path(tls["key_file"]).write_text("half a ke")
                proxy.cut()
                await registry["checkout"].get("k")
                assert f"{proxy.port} (store 'checkout') goes on with the files as they were" in caplog.text
                assert tls["key_file"] in caplog.text
                caplog.clear()
                Path(tls["key_file"]).write_text(good)
                proxy.cut()
                await registry["checkout"].get("k")
                assert "goes on with" not in caplog.text
                another = trustme.CA()
                another.cert_pem.write_to_path(tls["ca_file"])
                proxy.cut()
                with pytest.raises(StoreUnavailableError, match="certificate verify failed"):
                    await registry["checkout"].get("k")

    asyncio.run(work())
