"""Every way to reach a server: TCP, unix sockets, TLS, users, databases, Clusters, Sentinels."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trustme

import storeconf
from storeconf import StoreError, StoreUnavailableError
from storeconf.backends.server import RedisBackend, ValkeyBackend
from storeconf.plugin import BuildContext
from storeconf.stores.resp.cluster import slot_of
from tests.proxy import Proxy
from tests.servers import Server, begin_move, cluster, keys_in, move_slot, sentinels, shared, wait_for
from tests.stores.test_server_faults import Load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from storeconf import Store
    from storeconf.backends.server import ServerBackend
    from tests.servers import Watched


def build(kind: str = "valkey", **settings: Any) -> Store:
    settings.setdefault("namespace", "shop")
    backend: ServerBackend = {"redis": RedisBackend, "valkey": ValkeyBackend}[kind](**settings)
    return backend.build(BuildContext("main", None, lambda name: pytest.fail(name)))


async def round_trip(store: Store, *, server: str) -> None:
    """Do something of everything, and check what ping tells."""
    async with store:
        await store.delete_all()
        assert await store.get("k") is None
        await store.set("k", b"v", 100)
        assert await store.get("k", renew_for=200) == b"v"
        assert await store.expires_in("k") == 200
        assert await store.increment("n", 5, expires_in=10) == 5
        await store.set_many({f"m{i}": b"%d" % i for i in range(300)})
        assert await store.get_many([f"m{i}" for i in range(600)]) == {f"m{i}": b"%d" % i for i in range(300)}
        child = store.with_namespace("child")
        await child.set_many({f"c{i}": b"" for i in range(300)})
        assert {key async for key in child.keys()} == {f"c{i}" for i in range(300)}
        await store.delete_many([f"m{i}" for i in range(300)])
        assert {key async for key in store.keys()} == {"k", "n"}
        result = await store.ping()
        assert result.ok, result.error
        assert server in str(result.server)
        await store.delete_all()
        assert [key async for key in child.keys()] == []


@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_tcp(kind: str) -> None:
    server = shared()
    asyncio.run(round_trip(build(kind, url=server.url), server=f"valkey 9.1.2, standalone, {server.address}, no TLS"))


def test_through_a_layout() -> None:
    server = shared()
    layout = {
        "stores": {
            "main": {"type": "valkey", "url": "${URL}", "namespace": "layout"},
            "cache": {"parent": "main"},
            "limits": {"use": "cache"},
        },
        "default_factory": {"parent": "main"},
    }

    async def work() -> None:
        async with storeconf.load(layout, environ={"URL": server.url}) as registry:
            await registry.get("cache").set("k", "v")
            assert await registry.get("limits").get("k") == b"v"
            await registry.get("other").set("k", "w")
            assert b"w" in server.ask("GET", "layout:other::k")
            results = await registry.ping()
            assert all(result.ok for result in results.values())
            assert "valkey 9.1.2" in str(results["main"].server)
            await registry.get("main").delete_all()
            assert await registry.get("cache").get("k") is None

    asyncio.run(work())


@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_unix_socket(kind: str) -> None:
    path = shared().unix_socket
    asyncio.run(round_trip(build(kind, url=f"unix://{path}?db=2"), server=f"{path}, unix socket, database 2"))


@pytest.mark.parametrize("place", ["url", "field"])
def test_databases(place: str) -> None:
    server = shared("redis-6.2")
    address = f"redis://{server.address}"
    third = build(url=f"{address}/3") if place == "url" else build(url=address, db=3)

    async def work() -> None:
        await round_trip(third, server="redis 6.2.5, standalone")
        async with third, build(url=f"{address}/4") as fourth:
            await third.set("k", b"3")
            assert await fourth.get("k") is None
            await fourth.delete_all()
            assert await third.get("k") == b"3"

    asyncio.run(work())


@pytest.mark.parametrize("kind", ["redis-6.2", "redis-8.2", "valkey-9.1"])
def test_users_and_what_they_may(kind: str) -> None:
    secret = "p@ss:w/rd?#[] 100%"

    async def work() -> None:
        server.ask("ACL", "SETUSER", "app", "on", f">{secret}", "~shop:*", "+@all", "-@admin", "-@dangerous", "-client")
        settings = {"url": f"redis://{server.address}", "username": "app", "password": secret}
        async with build(**settings) as store:
            await store.set("k", b"v")
            result = await store.ping()
            assert result.ok, result.error
            async with build(**settings | {"namespace": "other"}) as other:
                with pytest.raises(StoreError, match="NOPERM") as denied:
                    await other.get("k")
                assert not isinstance(denied.value, StoreUnavailableError)
        for wrong in (settings | {"password": "hunter2"}, {"url": f"redis://app:hunter2@{server.address}"}):
            async with build(**wrong) as store:
                with pytest.raises(StoreError, match="WRONGPASS") as refused:
                    await store.set("k", b"v")
                assert not isinstance(refused.value, StoreUnavailableError)
                assert not refused.value.outcome_unknown
                assert "hunter2" not in str(refused.value)
                assert "hunter2" not in str(await store.ping())
                assert "hunter2" not in repr(store)

    with Server(kind) as server:
        asyncio.run(work())


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def _context(authority: trustme.CA, *names: str, ask_clients: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    if ask_clients:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _files(authority: trustme.CA, directory: Path) -> dict[str, str]:
    ca, cert, key = (directory / name for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(str(ca))
    issued = authority.issue_cert("client.example")
    issued.cert_chain_pems[0].write_to_path(str(cert))
    issued.private_key_pem.write_to_path(str(key))
    return {"ca_file": str(ca), "cert_file": str(cert), "key_file": str(key)}


@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_tls_with_client_certificates(kind: str, authority: trustme.CA, tmp_path: Path) -> None:
    files = _files(authority, tmp_path)

    async def work() -> None:
        async with Proxy(shared().port, tls=_context(authority, "localhost", ask_clients=True)) as proxy:
            for scheme in ("redis", "rediss"):
                store = build(kind, url=f"{scheme}://localhost:{proxy.port}", tls=files)
                await round_trip(store, server="TLS, database 0")
            without = {"ca_file": files["ca_file"]}
            async with build(kind, url=f"rediss://localhost:{proxy.port}", tls=without) as store:
                with pytest.raises(StoreUnavailableError):
                    await store.get("k")

    asyncio.run(work())


@pytest.mark.parametrize(
    ("verify", "name", "known", "works"),
    [
        ("full", "localhost", True, True),
        ("full", "elsewhere.example", True, False),
        ("chain", "elsewhere.example", True, True),
        ("chain", "localhost", False, False),
        ("none", "elsewhere.example", False, True),
    ],
)
def test_how_much_of_a_certificate_is_checked(
    verify: str, name: str, known: bool, works: bool, authority: trustme.CA, tmp_path: Path
) -> None:
    files = _files(authority, tmp_path)

    async def work() -> None:
        async with Proxy(shared().port, tls=_context(authority, name)) as proxy:
            tls = {"verify": verify, **({"ca_file": files["ca_file"]} if known else {})}
            async with build(url=f"redis://localhost:{proxy.port}", tls=tls, command_timeout=1) as store:
                if works:
                    await store.set("k", b"v")
                else:
                    with pytest.raises(StoreUnavailableError, match=r"(?i)certificate"):
                        await store.set("k", b"v")

    asyncio.run(work())


def test_certificates_that_are_not_there_are_told_apart_from_servers(tmp_path: Path) -> None:
    async def work() -> None:
        async with build(url=shared().url, tls={"ca_file": tmp_path / "none.pem"}) as store:
            with pytest.raises(StoreUnavailableError, match=r"the CA file '.*none\.pem' can't be read: No such file"):
                await store.get("k")

    asyncio.run(work())


def test_a_url_checks_certificates_unless_it_says_otherwise(authority: trustme.CA) -> None:
    async def work() -> None:
        async with Proxy(shared().port, tls=_context(authority, "localhost")) as proxy:
            async with build(url=f"rediss://localhost:{proxy.port}", command_timeout=1) as store:
                with pytest.raises(StoreUnavailableError):
                    await store.set("k", b"v")
            url = f"rediss://localhost:{proxy.port}?ssl_cert_reqs=none&ssl_check_hostname=false"
            async with build(url=url, command_timeout=1) as store:
                await store.set("k", b"v")

    asyncio.run(work())


# ---------------------------------------------------------------------- Cluster


@pytest.fixture(scope="module", params=["redis-6.2", "valkey-9.1"])
def nodes(request: pytest.FixtureRequest) -> Iterator[list[Server]]:
    with cluster(request.param) as nodes:
        yield nodes


def test_cluster(nodes: list[Server]) -> None:
    for kind in ("redis", "valkey"):
        store = build(kind, cluster=[nodes[1].address, "127.0.0.1:1"])
        asyncio.run(round_trip(store, server="cluster, 3 primaries"))


def test_cluster_slots() -> None:
    assert slot_of(b"123456789") == 12739
    assert slot_of(b"shop::{a}b") == slot_of(b"a")
    assert slot_of(b"shop::{}b") != slot_of(b"")


def test_cluster_deletes_on_every_node_and_spares_siblings(nodes: list[Server]) -> None:
    async def work() -> None:
        async with (
            build(cluster=[nodes[0].address]) as store,
            build(cluster=[nodes[2].address], namespace="shop2") as sibling,
        ):
            await store.set_many({f"k{i}": b"v" for i in range(1000)})
            await store.with_namespace("a").set_many({f"k{i}": b"v" for i in range(1000)})
            await sibling.set_many({f"k{i}": b"v" for i in range(100)})
            assert all(node.ask("DBSIZE") not in (b":0\r\n",) for node in nodes)
            await store.delete_all()
            assert [key async for key in store.keys()] == []
            assert len([key async for key in sibling.keys()]) == 100
            await sibling.delete_all()

    asyncio.run(work())


def test_cluster_slots_that_move_under_load(nodes: list[Server]) -> None:
    async def work() -> None:
        async with build(cluster=[nodes[0].address]) as store, Load(store, 100) as load:
            slots = sorted({slot_of(b"shop::k%d" % i) for i in range(100)})
            first = [slot for slot in slots if slot < 16384 // 3]
            for slot in first[:20]:
                await asyncio.to_thread(move_slot, slot, nodes[0], nodes[2], nodes)
            await load.more(500)
            for slot in first[:20]:
                await asyncio.to_thread(move_slot, slot, nodes[2], nodes[0], nodes)
            await load.more(500)
        assert not load.wrong
        assert not load.errors

    asyncio.run(work())


def test_cluster_half_of_a_slot_has_moved(nodes: list[Server]) -> None:
    async def work() -> None:
        slot = slot_of(b"half")
        source = next(n for n in nodes if n.ask("CLUSTER", "COUNTKEYSINSLOT", slot) and _owns(n, slot))
        target = next(n for n in nodes if n is not source)
        async with build(cluster=[nodes[0].address]) as store:
            values = {f"{{half}}{i}": b"%d" % i for i in range(40)}
            await store.set_many(values)
            begin_move(slot, source, target)
            for key in keys_in(source, slot)[:20]:
                source.ask("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
            assert await store.get_many(values) == values
            assert await store.get("{half}1", renew_for=5) == b"1"
            assert await store.increment("{half}new") == 1
            await store.delete_many(list(values)[:30])
            assert sorted(await store.get_many(values)) == sorted(list(values)[30:])
            for node in (source, target):
                node.ask("CLUSTER", "SETSLOT", slot, "STABLE")
            await asyncio.to_thread(move_slot, slot, source, target, nodes)
            assert await store.get("{half}new") == b"1"
            await asyncio.to_thread(move_slot, slot, target, source, nodes)
            await store.delete_all()

    asyncio.run(work())


@pytest.mark.parametrize("wholly", [True, False])
def test_cluster_keys_are_found_though_their_slot_moves_to_where_we_have_been(
    nodes: list[Server], wholly: bool
) -> None:
    async def work() -> None:
        names = [f"k{i}" for i in range(100)]
        async with build(cluster=[nodes[0].address]) as store:
            await store.set_many(dict.fromkeys(names, b"v"))
            last = next(name for name in names if slot_of(b"shop::" + name.encode()) > 16384 * 2 // 3 + 1)
            slot, source, target = slot_of(b"shop::" + last.encode()), nodes[2], nodes[0]
            found: list[str] = []
            async for key in store.keys():
                if not found:
                    assert slot_of(b"shop::" + key.encode()) < 16384 // 3
                    if wholly:
                        move_slot(slot, source, target, nodes)
                    else:
                        begin_move(slot, source, target)
                        source.ask("MIGRATE", "127.0.0.1", target.port, f"shop::{last}", 0, 5000)
                found.append(key)
            assert set(found) == set(names)
            await store.delete_all()
            assert await store.get_many(names) == {}
            if not wholly:
                for node in (source, target):
                    node.ask("CLUSTER", "SETSLOT", slot, "STABLE")
            else:
                move_slot(slot, target, source, nodes)

    asyncio.run(work())


@pytest.mark.slow
def test_cluster_deletes_everything_while_slots_move(nodes: list[Server]) -> None:
    async def work() -> None:
        names = [f"{{{i % 40}}}{i}" for i in range(20_000)]
        slots = [slot for slot in sorted({slot_of(b"%d" % i) for i in range(40)}) if slot > 16384 * 2 // 3 + 1]
        async with build(cluster=[nodes[0].address]) as store:
            for source, target in [(nodes[2], nodes[0]), (nodes[0], nodes[2])] * 2:
                await store.set_many(dict.fromkeys(names, b"v"))

                def move(source: Server = source, target: Server = target) -> None:
                    for slot in slots:
                        move_slot(slot, source, target, nodes)

                moving = asyncio.ensure_future(asyncio.to_thread(move))
                await store.delete_all()
                assert await store.get_many(names) == {}
                await moving

    asyncio.run(work())


def test_cluster_that_is_written_in_part_says_so() -> None:
    async def work(nodes: list[Server]) -> None:
        for node in nodes:
            node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
        nodes[2].stop()
        names = [f"k{i}" for i in range(20)]
        async with build(cluster=[nodes[0].address]) as store:
            with pytest.raises(StoreError) as caught:
                await store.set_many(dict.fromkeys(names, b"v"))
            assert caught.value.outcome_unknown
            assert len(await store.get_many([n for n in names if slot_of(b"shop::" + n.encode()) < 10_000]))

    with cluster() as nodes:
        asyncio.run(work(nodes))


def _owns(node: Server, slot: int) -> bool:
    lines = node.ask("CLUSTER", "NODES").decode().splitlines()
    mine = next(line for line in lines if "myself" in line)
    ranges = [part.partition("-") for part in mine.split()[8:] if not part.startswith("[")]
    return any(int(low) <= slot <= int(high or low) for low, _, high in ranges)


@pytest.mark.slow
def test_cluster_promotes_a_replica() -> None:
    async def work(nodes: list[Server]) -> None:
        store = build(cluster=[nodes[0].address], command_timeout=5, retries=10)
        async with store, Load(store, 60) as load:
            nodes[0].stop()
            await asyncio.to_thread(_wait_for_owner, nodes[3])
            await load.more(2000)
            assert load.longest < 5.5
            # Replication is asynchronous: what was acknowledged in the last moment may be missing.
            assert len(load.wrong) <= 60
            load.wrong.clear()
            await load.more(2000)
            assert not load.wrong
            assert f"127.0.0.1:{nodes[3].port}" in str((await store.ping()).server)

    with cluster(replicas=1, node_timeout=1.0) as nodes:
        asyncio.run(work(nodes))


def _wait_for_owner(node: Server) -> None:
    deadline = time.monotonic() + 20
    while not _owns(node, 0):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_server_that_is_no_cluster() -> None:
    async def work() -> None:
        async with build(cluster=[shared().address]) as store:
            with pytest.raises(StoreError, match=rf"{re.escape(shared().address)} .*cluster support disabled"):
                await store.get("k")

    asyncio.run(work())


def test_a_cluster_that_is_down() -> None:
    async def work() -> None:
        async with build(cluster=["127.0.0.1:1", "127.0.0.1:2"], command_timeout=1) as store:
            started = time.monotonic()
            with pytest.raises(StoreUnavailableError, match="can't connect") as caught:
                await store.set("k", b"v")
            assert not caught.value.outcome_unknown
            assert time.monotonic() - started < 1.3

    asyncio.run(work())


# ---------------------------------------------------------------------- Sentinel


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    with sentinels(password="s3ntinel'#") as watched:
        yield watched


def _of(watched: Watched, **settings: Any) -> Store:
    sentinel = {"nodes": watched.nodes, "service": "shop", "password": "s3ntinel'#"}
    return build(sentinel={**sentinel, **settings.pop("sentinel", {})}, **settings)


def test_sentinel_with_its_own_password(watched: Watched) -> None:
    asyncio.run(round_trip(_of(watched), server="sentinel, 127.0.0.1:"))


def test_sentinels_that_are_wrong_or_missing(watched: Watched) -> None:
    async def work() -> None:
        cases: list[tuple[dict[str, Any], str]] = [
            ({"service": "other"}, "knows no service 'other'"),
            ({"password": "hunter2"}, "WRONGPASS"),
            ({"nodes": ["127.0.0.1:1"]}, "can't connect to 127.0.0.1:1"),
            ({"nodes": [watched.primary.address]}, "."),
        ]
        for sentinel, message in cases:
            async with _of(watched, sentinel=sentinel, command_timeout=1) as store:
                with pytest.raises(StoreError, match=message) as caught:
                    await store.set("k", b"v")
                assert "hunter2" not in str(caught.value)
        async with _of(watched, sentinel={"nodes": ["127.0.0.1:1", *watched.nodes]}) as store:
            await store.set("k", b"v")

    asyncio.run(work())


def test_sentinels_that_hang_hold_up_nobody(watched: Watched) -> None:
    async def work() -> None:
        async with _of(watched) as store:
            started = time.monotonic()
            await store.set("k", b"v")
            assert time.monotonic() - started < 1.5

    for sentinel in watched.sentinels[:2]:
        sentinel.freeze()
    try:
        asyncio.run(work())
    finally:
        for sentinel in watched.sentinels[:2]:
            sentinel.thaw()


class Counting:
    """Tasks that increment one counter; what was acknowledged must be there afterwards."""

    def __init__(self, store: Store) -> None:
        self.store, self.known, self.unknown, self.stopped = store, 0, 0, False

    async def work(self) -> None:
        while not self.stopped:
            try:
                await self.store.increment("n")
                self.known += 1
            except StoreError as error:
                self.unknown += error.outcome_unknown
            await asyncio.sleep(0.005)

    async def more(self, calls: int, within: float) -> None:
        goal = self.known + calls
        async with asyncio.timeout(within):
            while self.known < goal:
                await asyncio.sleep(0.01)


@pytest.mark.slow
def test_sentinel_failovers_planned_and_crashed() -> None:
    async def work(watched: Watched) -> None:
        store = _of(watched, command_timeout=0.5)
        async with store:
            await store.delete_all()
            counting = Counting(store)
            tasks = [asyncio.ensure_future(counting.work()) for _ in range(4)]
            await counting.more(200, 5)
            await asyncio.to_thread(watched.fail_over)
            async with asyncio.timeout(15):
                while f":{watched.replica.port}" not in str((await store.ping()).server):
                    await asyncio.sleep(0.02)
            # The old primary takes writes for seconds after a planned failover; the store must not follow it.
            await counting.more(2000, 15)
            planned = counting.known - await store.increment("n", 0)
            assert planned <= 100, "tens, where a client that does not listen loses thousands"
            before = counting.known - planned
            await asyncio.to_thread(_wait_for_replica, watched.primary)
            watched.replica.stop()
            await counting.more(500, 20)
            counting.stopped = True
            await asyncio.gather(*tasks)
            value = await store.increment("n", 0)
            assert before <= value
            assert counting.known - planned - 50 <= value <= counting.known + counting.unknown

    with sentinels(password="s3ntinel'#") as own:  # for it leaves them without one of the servers
        asyncio.run(work(own))


def _wait_for_replica(server: Server) -> None:
    def is_replica() -> bool:
        with suppress(ConnectionError):  # Sentinel ends the connections to a server that it makes a replica
            return b"master_link_status:up" in server.ask("INFO", "replication")
        return False

    wait_for(is_replica, "the old primary as a replica")
