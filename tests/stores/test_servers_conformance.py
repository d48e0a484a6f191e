"""The conformance suite on real servers, oldest and newest, as root and as child, by both client libraries."""

from __future__ import annotations

from storeconf.stores import RedisStore
from storeconf.testing import StoreConformance
from tests.servers import shared


class TestRedis(StoreConformance):
    def make_store(self) -> RedisStore:
        return RedisStore.with_client(shared("redis-8.2").url, namespace=self.unique)
