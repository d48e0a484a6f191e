"""Certificates that change while a store is in use: the client's and the authority's, on every topology."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import AsyncExitStack, ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trustme

import storeconf
from storeconf import StoreUnavailableError
from tests.proxy import Proxy
from tests.servers import Server, cluster, sentinels, wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

KEYS = [f"k{number}" for number in range(50)]


class TlsOrPlain(Proxy):
    """Ends TLS for those that begin it, and passes others through: Sentinels do not speak TLS to what they watch."""

    async def _listen(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", self.port))
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]
        self._accepting = asyncio.create_task(self._accept())

    async def use(self, tls: ssl.SSLContext) -> None:
        self._tls = tls

    async def __aexit__(self, *_: object) -> None:
        self._accepting.cancel()
        await asyncio.wait([self._accepting])
        self._socket.close()
        while self._tasks:
            self.cut()
            await asyncio.wait(self._tasks, timeout=0.05)

    async def _accept(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                client, _ = await asyncio.get_running_loop().sock_accept(self._socket)
                group.create_task(self._begin(client))

    async def _begin(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(client, readable.set)
        try:
            await readable.wait()
        except BaseException:
            client.close()
            raise
        finally:
            loop.remove_reader(client)
        try:
            tls = self._tls if client.recv(1, socket.MSG_PEEK) == b"\x16" else None
            reader = asyncio.StreamReader(limit=1 << 16)
            await loop.connect_accepted_socket(
                lambda: asyncio.StreamReaderProtocol(reader, self._serve), client, ssl=tls
            )
        except OSError:  # the handshake failed, or the client is gone
            client.close()


class Files:
    """The files of a client, which an operator replaces."""

    def __init__(self, directory: Path) -> None:
        self.ca, self.cert, self.key = (directory / name for name in ("ca.pem", "cert.pem", "key.pem"))
        self.settings = {"ca_file": str(self.ca), "cert_file": str(self.cert), "key_file": str(self.key)}

    def trust(self, *authorities: trustme.CA) -> None:
        draft = self.ca.with_suffix(".draft")
        draft.write_bytes(b"".join(authority.cert_pem.bytes() for authority in authorities))
        draft.replace(self.ca)

    def show(self, authority: trustme.CA) -> None:
        """Have a certificate of this authority; the two files change one after the other, as with any tool."""
        issued = authority.issue_cert("client.example")
        issued.cert_chain_pems[0].write_to_path(str(self.cert))
        issued.private_key_pem.write_to_path(str(self.key))


def context(server: trustme.CA, *clients: trustme.CA) -> ssl.SSLContext:
    """What a server does: shows a certificate of one authority, and wants one of these from clients."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.issue_cert("127.0.0.1").configure_cert(made)
    for authority in clients:
        authority.configure_trust(made)
    made.verify_mode = ssl.CERT_REQUIRED
    return made


class Site:
    """Servers behind TLS, and the settings by which a store finds them."""

    def __init__(self, proxies: list[Proxy], where: dict[str, Any]) -> None:
        self.proxies, self.where = proxies, where

    async def use(self, tls: ssl.SSLContext) -> None:
        for proxy in self.proxies:
            await proxy.use(tls)

    def cut(self) -> None:
        for proxy in self.proxies:
            proxy.cut()


async def one_server(kind: str, tls: ssl.SSLContext, files: Files) -> AsyncIterator[Site]:
    with Server(kind) as server:
        async with Proxy(server.port, tls=tls) as proxy:
            yield Site([proxy], {"url": f"redis://127.0.0.1:{proxy.port}", "tls": files.settings})


async def a_cluster(kind: str, tls: ssl.SSLContext, files: Files) -> AsyncIterator[Site]:
    with ExitStack() as stack:
        nodes = await asyncio.to_thread(stack.enter_context, cluster(kind))
        async with AsyncExitStack() as proxies:
            made = [await proxies.enter_async_context(Proxy(node.port, tls=tls)) for node in nodes]
            for node, proxy in zip(nodes, made, strict=True):
                node.ask("CONFIG", "SET", "cluster-announce-port", proxy.port)
            ports = [b":%d\r\n" % proxy.port for proxy in made]
            for node in nodes:
                await asyncio.to_thread(
                    wait_for,
                    lambda node=node: all(port in node.ask("CLUSTER", "SLOTS") for port in ports),
                    "a Cluster of proxies",
                )
            where = {"cluster": [f"127.0.0.1:{proxy.port}" for proxy in made], "tls": files.settings}
            yield Site(made, where)


async def what_sentinels_watch(kind: str, tls: ssl.SSLContext, files: Files) -> AsyncIterator[Site]:
    with ExitStack() as stack:
        watched = await asyncio.to_thread(stack.enter_context, sentinels(kind, count=1))
        (sentinel,) = watched.sentinels
        async with TlsOrPlain(watched.primary.port, tls=tls) as primary, Proxy(sentinel.port, tls=tls) as asked:
            sentinel.ask("SENTINEL", "REMOVE", "shop")
            assert sentinel.ask("SENTINEL", "MONITOR", "shop", "127.0.0.1", primary.port, 1).startswith(b"+OK")
            service = {"nodes": [f"127.0.0.1:{asked.port}"], "service": "shop", "tls": files.settings}
            yield Site([primary, asked], {"sentinel": service, "tls": files.settings})


SITES = {"one server": one_server, "Cluster": a_cluster, "Sentinel": what_sentinels_watch}


async def refused(store: storeconf.Store) -> str:
    """The error once the connections that there were are gone."""
    async with asyncio.timeout(20):
        while True:
            try:
                await store.get_many(KEYS)
            except StoreUnavailableError as error:
                if "handshake" in str(error):
                    return str(error)
            await asyncio.sleep(0.02)


async def answers(store: storeconf.Store) -> None:
    async with asyncio.timeout(20):
        while True:
            with suppress(StoreUnavailableError):
                assert len(await store.get_many(KEYS)) == len(KEYS)
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("topology", "kind"),
    [
        ("one server", "valkey-9.1"),
        pytest.param("one server", "redis-8.2", marks=pytest.mark.slow),
        ("Cluster", "valkey-9.1"),
        pytest.param("Cluster", "redis-8.2", marks=pytest.mark.slow),
        ("Sentinel", "redis-8.2"),
        pytest.param("Sentinel", "valkey-9.1", marks=pytest.mark.slow),
    ],
)
def test_certificates_rotate(topology: str, kind: str, tmp_path: Path) -> None:
    before, after = trustme.CA(), trustme.CA()
    files = Files(tmp_path)
    files.trust(before)
    files.show(before)

    async def work(site: Site) -> None:
        store = {"type": kind.partition("-")[0], "namespace": "shop", "retries": 3, **site.where}
        async with storeconf.load({"stores": {"checkout": store}}, environ={}) as registry:
            checkout = registry["checkout"]
            await checkout.set_many(dict.fromkeys(KEYS, b"v"))

            # In the order of the how-to nothing fails: what clients trust, then the server, then what clients show.
            files.trust(before, after)
            await site.use(context(after, before, after))
            files.show(after)
            site.cut()
            assert len(await checkout.get_many(KEYS)) == len(KEYS)
            await site.use(context(after, after))
            site.cut()
            assert len(await checkout.get_many(KEYS)) == len(KEYS)

            # Otherwise the error names the file that has to change, and nothing has to be reloaded once it has.
            files.trust(before)
            assert len(await checkout.get_many(KEYS)) == len(KEYS)  # on connections that there are
            site.cut()
            error = await refused(checkout)
            assert f"the CA file {str(files.ca)!r}" in error
            assert "certificate verify failed" in error
            files.trust(after)
            await answers(checkout)

            files.show(before)
            site.cut()
            error = await refused(checkout)
            assert f"may have refused the certificate in {str(files.cert)!r}" in error
            files.show(after)
            await answers(checkout)

    async def main() -> None:
        async for site in SITES[topology](kind, context(before, before), files):
            await work(site)

    asyncio.run(main())
