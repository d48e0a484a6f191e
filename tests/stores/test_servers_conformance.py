"""The conformance suite on real servers: each version, both client libraries, as root and as child, both loops."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar, Self

import pytest
import uvloop

from storeconf.stores import RedisStore, ValkeyStore
from storeconf.stores.resp import protocol
from storeconf.stores.resp.options import ServerOptions
from storeconf.testing import StoreConformance
from tests.servers import cluster, shared

if TYPE_CHECKING:
    from collections.abc import Iterator


class TestRedisOldest(StoreConformance):
    def make_store(self) -> RedisStore:
        return RedisStore.with_client(shared("redis-6.2").url, namespace=self.unique)


class TestRedisNewestAsChild(StoreConformance):
    namespaces = ("parent", "child")
    model_examples = 10

    def make_store(self) -> RedisStore:
        return RedisStore.with_client(shared("redis-8.2").url, namespace=self.unique)


class TestValkeyOnUvloop(StoreConformance):
    def make_store(self) -> ValkeyStore:
        return ValkeyStore.with_client(f"unix://{shared().unix_socket}", namespace=self.unique)

    def runner(self) -> asyncio.Runner:
        return asyncio.Runner(loop_factory=uvloop.new_event_loop)


class WithoutUnderscores(ValkeyStore):
    """Gives the suite's ``a_b`` another name: with Litestar's keys it would be the same as b below a."""

    def with_namespace(self, namespace: str) -> Self:
        return super().with_namespace(namespace.replace("_", "-"))


class TestLitestarsKeys(StoreConformance):
    """With Litestar's keys, where only names that hold ``_`` promise less."""

    namespaces = ("child",)
    model_examples = 10
    kind: type[ValkeyStore] = ValkeyStore

    # Here a and b below a, and one a_b, are the same: what the docs say this layout does not promise.
    test_path_and_key_never_collide = None  # type: ignore[assignment]  # so that nobody collects it
    test_delete_all_spares_siblings = None  # type: ignore[assignment]  # likewise
    test_walk_lists_what_delete_all_removes = None  # type: ignore[assignment]  # likewise; see test_server_keys.py

    def test_stateful_model(self) -> None:
        self.kind = WithoutUnderscores
        super().test_stateful_model()

    def make_store(self) -> ValkeyStore:
        return self.kind.with_client(shared().url, namespace=self.unique, key_layout="litestar")


class TestWithoutCompiledCode(StoreConformance):
    model_examples = 10

    @pytest.fixture(autouse=True)
    def _python_reader(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(protocol, "hiredis", None)

    def make_store(self) -> RedisStore:
        return RedisStore.with_client(shared().url, namespace=self.unique)


class TestCluster(StoreConformance):
    model_examples = 10
    ports: ClassVar[list[int]] = []

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _cluster(cls) -> Iterator[None]:
        with cluster() as nodes:
            cls.ports = [node.port for node in nodes]
            yield

    def make_store(self) -> ValkeyStore:
        seeds = tuple(("127.0.0.1", port) for port in self.ports)
        return ValkeyStore.from_options(ServerOptions(cluster=seeds), namespace=self.unique)
