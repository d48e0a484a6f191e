"""What type checkers see of the Litestar integration."""

from typing import assert_type

from litestar import Litestar, Request
from litestar.datastructures import State
from litestar.stores.base import NamespacedStore as LitestarNamespacedStore
from litestar.stores.base import Store as LitestarStore
from litestar.stores.registry import StoreRegistry as LitestarStoreRegistry

from storeconf import FileStore, MemoryStore, RedisStore, Store, StoreRegistry, ValkeyStore, load
from storeconf.integrations.litestar import (
    LitestarRegistry,
    SessionConfig,
    StoreconfPlugin,
    revoke_sessions,
    rotate_session,
)

plugin = StoreconfPlugin("storeconf.yaml", environment="production")
assert_type(plugin.registry, StoreRegistry)
assert_type(plugin.registry["sessions"], Store)

app = Litestar(plugins=[plugin, StoreconfPlugin(), StoreconfPlugin({"stores": {}}), StoreconfPlugin(StoreRegistry())])
assert_type(app.stores, LitestarStoreRegistry)
assert_type(app.stores.get("sessions"), LitestarStore)

adapted = load().to_litestar()
assert_type(adapted, LitestarStoreRegistry)
assert_type(LitestarRegistry(load()).get("sessions"), Store)
assert_type(LitestarRegistry(load()).registry, StoreRegistry)
adapted.register("memory", MemoryStore())
Litestar(
    stores=adapted, middleware=[SessionConfig(renew_on_access=True, absolute_max_age=60, user_key="user").middleware]
)


async def login(request: Request[str, str, State]) -> None:
    rotate_session(request)
    await revoke_sessions(plugin.registry["sessions"], 5)


def wants_litestars(store: LitestarNamespacedStore) -> LitestarStore:
    return store


async def stores() -> None:
    for store in (
        MemoryStore(),
        FileStore("var"),
        RedisStore.with_client(url="redis://localhost", db=0, port=6379, namespace="A"),
        ValkeyStore.with_client(),
        plugin.registry["sessions"],
        load().get("any"),
    ):
        wants_litestars(store)
    async with MemoryStore() as entered:
        assert_type(entered, MemoryStore)
        assert_type(await entered.get("k", renew_for=10), bytes | None)
        assert_type(await entered.expires_in("k"), int | None)
        assert_type(entered.with_namespace("a"), MemoryStore)
    Litestar(stores={"given": MemoryStore()})
    root = FileStore("var")
    LitestarStoreRegistry({"given": MemoryStore(), "root": root}, default_factory=root.with_namespace)
