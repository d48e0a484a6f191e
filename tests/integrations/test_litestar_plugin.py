"""The plugin and the registry for Litestar: what opens and closes, when, and what passes for Litestar's own."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from litestar import Litestar, Request, get
from litestar.events import listener
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.plugins import InitPlugin
from litestar.stores.base import NamespacedStore as LitestarNamespacedStore
from litestar.stores.base import Store as LitestarStore
from litestar.stores.memory import MemoryStore as LitestarMemoryStore
from litestar.stores.registry import StoreRegistry as LitestarStoreRegistry
from litestar.testing import TestClient

from storeconf import ConfigError, FileStore, MemoryStore, StoreClosedError, StoreRegistry
from storeconf.integrations.litestar import StoreconfPlugin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from litestar.config.app import AppConfig

LAYOUT: dict[str, Any] = {
    "stores": {"main": {"type": "memory"}, "sessions": {"parent": "main"}},
    "default_factory": {"type": "memory"},
}


@get("/{name:str}", sync_to_thread=False)
def show(request: Request[Any, Any, Any]) -> dict[str, bool]:
    store = request.app.stores.get(request.path_params["name"])
    return {"open": getattr(store, "is_open", False)}


def test_the_registry_opens_and_closes_with_the_application_as_often_as_that() -> None:
    plugin = StoreconfPlugin(LAYOUT)
    app = Litestar(plugins=[plugin])
    for _ in range(2):
        with TestClient(app):
            assert [plugin.registry.is_open, plugin.registry["sessions"].is_open] == [True, True]
        assert [plugin.registry.is_open, plugin.registry["sessions"].is_open] == [False, False]


def test_a_store_that_the_default_factory_makes_during_a_request_is_closed_with_the_others() -> None:
    made = []

    @get("/")
    async def index(request: Request[Any, Any, Any]) -> None:
        store: Any = request.app.stores.get("unheard_of")
        await store.set("k", "v")
        made.append(store)

    with TestClient(Litestar([index], plugins=[StoreconfPlugin(LAYOUT)])) as client:
        client.get("/")
        assert made[0].is_open
    assert not made[0].is_open


def test_what_an_integration_asks_for_and_nobody_listed_is_kept_and_warned_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @get("/")
    async def index(request: Request[Any, Any, Any]) -> int:
        request.session["n"] = request.session.get("n", 0) + 1
        return int(request.session["n"])

    plugin = StoreconfPlugin({"stores": {"session": {"type": "memory"}}})
    with caplog.at_level(logging.WARNING, "storeconf"):
        sessions = ServerSideSessionConfig().middleware
        with TestClient(Litestar([index], plugins=[plugin], middleware=[sessions], logging_config=None)) as client:
            assert [client.get("/").json() for _ in range(2)] == [1, 2]
    assert "store 'sessions' is not in the layout and is kept in memory; did you mean 'session'?" in caplog.text


def test_lifespans_and_startup_hooks_of_the_application_run_while_the_stores_are_open() -> None:
    seen: list[object] = []
    plugin = StoreconfPlugin(LAYOUT)

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        await app.stores.get("main").set("from", "lifespan")
        seen.append(plugin.registry.is_open)
        yield
        seen.append(await app.stores.get("main").get("from"))

    async def startup() -> None:
        seen.append(plugin.registry.is_open)

    with TestClient(Litestar(plugins=[plugin], lifespan=[lifespan], on_startup=[startup])):
        pass
    assert seen == [True, True, b"lifespan"]


def test_a_startup_that_fails_leaves_nothing_open() -> None:
    async def startup() -> None:
        raise LookupError("no")

    plugin = StoreconfPlugin(LAYOUT)
    app = Litestar(plugins=[plugin], on_startup=[startup])

    async def start() -> None:
        async with app.lifespan():
            raise AssertionError("started")

    with pytest.raises(BaseExceptionGroup) as failure:
        asyncio.run(start())
    assert failure.group_contains(LookupError, match="no")
    assert not plugin.registry.is_open


def test_shutdown_hooks_and_listeners_that_outlast_the_last_request_run_while_the_stores_are_open() -> None:
    seen: list[object] = []
    stopping = asyncio.Event()

    @listener("visit")
    async def remember(app: Litestar) -> None:
        await stopping.wait()
        await app.stores.get("unheard_of").set("from", "listener")

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        yield
        stopping.set()

    async def shutdown(app: Litestar) -> None:
        seen.append(await app.stores.get("unheard_of").get("from"))

    plugin = StoreconfPlugin(LAYOUT)
    app = Litestar(plugins=[plugin], lifespan=[lifespan], on_shutdown=[shutdown], listeners=[remember])

    async def main() -> None:
        async with app.lifespan():
            app.emit("visit", app)

    for _ in range(2):
        asyncio.run(main())
        stopping = asyncio.Event()
        assert not plugin.registry.is_open
    assert seen == [b"listener"] * 2


def test_an_application_that_fails_before_it_opens_the_registry_does_not_close_it_for_others() -> None:
    class Failing(LitestarMemoryStore):
        async def __aenter__(self) -> None:
            raise LookupError("no")

    class Before(InitPlugin):
        def on_app_init(self, app_config: AppConfig) -> AppConfig:
            app_config.lifespan.insert(0, Failing())
            return app_config

    registry = StoreRegistry({"main": MemoryStore()})
    app = Litestar(plugins=[StoreconfPlugin(registry), Before()])

    async def main() -> None:
        async with registry:
            with pytest.raises(BaseExceptionGroup) as failure:
                async with app.lifespan():
                    raise AssertionError("started")
            assert failure.group_contains(LookupError, match="no")
            assert registry.is_open

    asyncio.run(main())
    assert not registry.is_open


def test_given_stores_join_the_registry_ours_and_litestars_own() -> None:
    ours, theirs = MemoryStore(), LitestarMemoryStore()
    plugin = StoreconfPlugin(LAYOUT)
    app = Litestar(plugins=[plugin], stores={"ours": ours, "theirs": theirs})
    with TestClient(app):
        assert ours.is_open
        assert app.stores.get("theirs") is theirs
    assert not ours.is_open


def test_a_given_store_of_a_listed_name_is_refused() -> None:
    with pytest.raises(ValueError, match="there is a store 'main' already"):
        Litestar(plugins=[StoreconfPlugin(LAYOUT)], stores={"main": LitestarMemoryStore()})


def test_a_registry_of_litestars_beside_the_plugin_is_refused() -> None:
    with pytest.raises(ValueError, match="not both"):
        Litestar(plugins=[StoreconfPlugin(LAYOUT)], stores=LitestarStoreRegistry())


def test_a_store_that_is_registered_while_the_application_runs_is_closed_with_it() -> None:
    late = MemoryStore()
    app = Litestar(plugins=[StoreconfPlugin(LAYOUT)])

    async def main() -> None:
        async with app.lifespan():
            app.stores.register("late", late)
            with pytest.raises(ValueError, match="already"):
                app.stores.register("late", LitestarMemoryStore())
            await late.set("k", "v")
        with pytest.raises(StoreClosedError):
            await late.get("k")

    asyncio.run(main())


def test_without_the_plugin_a_registry_is_given_as_stores() -> None:
    registry = StoreRegistry({"main": MemoryStore()})
    app = Litestar([show], stores=registry.to_litestar())
    with TestClient(app) as client:
        assert client.get("/main").json() == {"open": True}
        assert client.get("/other").json() == {"open": False}  # not before its first use
        assert registry.is_open
    assert not registry.is_open


def test_two_applications_share_a_registry() -> None:
    registry = StoreRegistry({"main": MemoryStore()})
    first, second = (Litestar([show], plugins=[StoreconfPlugin(registry)]) for _ in range(2))
    with TestClient(second):
        with TestClient(first):
            pass
        assert registry["main"].is_open
    assert not registry["main"].is_open


def test_every_store_passes_for_litestars(tmp_path: Path) -> None:
    stores: list[object] = [MemoryStore(), FileStore(tmp_path), MemoryStore().with_namespace("a")]
    for store in stores:
        assert isinstance(store, LitestarStore)
        assert isinstance(store, LitestarNamespacedStore)
    assert not isinstance({}, LitestarStore)


@pytest.mark.parametrize(
    "imports",
    [
        "import litestar.stores.base as theirs; from storeconf import MemoryStore",
        "from storeconf import MemoryStore; import litestar.stores.base as theirs",
        "from storeconf import MemoryStore; early = MemoryStore(); import litestar.stores.base as theirs; "
        "import storeconf.integrations.litestar",
    ],
)
def test_a_store_passes_for_litestars_in_whatever_order_they_are_imported(imports: str) -> None:
    script = f"{imports}; assert isinstance(globals().get('early') or MemoryStore(), theirs.NamespacedStore)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_wrong_layout_keeps_the_application_from_being_made(tmp_path: Path) -> None:
    (tmp_path / "stores.yaml").write_text("stores: {main: {type: memry}}\n")
    with pytest.raises(ConfigError, match="memry"):
        StoreconfPlugin(tmp_path / "stores.yaml")


def test_an_environment_is_for_a_layout() -> None:
    with pytest.raises(ValueError, match="environment applies to a layout"):
        StoreconfPlugin(StoreRegistry(), environment="production")
