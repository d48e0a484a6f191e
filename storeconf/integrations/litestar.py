"""Litestar: our registry as ``app.stores``, and our stores wherever Litestar expects its own.

app = Litestar(route_handlers, plugins=[StoreconfPlugin("storeconf.yaml")])
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, cast

from litestar.plugins import InitPlugin
from litestar.stores.registry import StoreRegistry as LitestarStoreRegistry

from storeconf.integrations._litestar_sessions import (
    SessionConfig,
    end_rotated_session,
    rotate_session,
    warn_of_lifetimes,
)
from storeconf.integrations._session_ends import revoke_sessions
from storeconf.integrations._source import registry_from
from storeconf.registry import StoreRegistry
from storeconf.store_base import introduce_to_litestar

if TYPE_CHECKING:
    from litestar import Litestar
    from litestar.config.app import AppConfig
    from litestar.stores.base import Store as LitestarStore

    from storeconf.integrations._source import Source
    from storeconf.store import Store

__all__ = ["LitestarRegistry", "SessionConfig", "StoreconfPlugin", "revoke_sessions", "rotate_session"]

introduce_to_litestar()  # those that were made before Litestar was imported


class LitestarRegistry(LitestarStoreRegistry):
    """The ``stores=`` of a Litestar application: looks up every name in our registry, and opens and closes it."""

    def __init__(self, registry: StoreRegistry) -> None:
        super().__init__()
        self._registry = registry
        # Litestar calls the values of this mapping with the application when it starts, enters what they return, and
        # leaves that when the application stops.
        self._stores = cast("dict[str, Any]", {"": self._start})

    @property
    def registry(self) -> StoreRegistry:
        """The registry in which names are looked up."""
        return self._registry

    def _start(self, application: Litestar) -> StoreRegistry:
        warn_of_lifetimes(application, self._registry)
        if end_rotated_session not in application.before_send:
            application.before_send.append(end_rotated_session)
        return self._registry

    def get(self, name: str) -> Store:
        """See `StoreRegistry.get`."""
        return self._registry.get(name)

    def register(self, name: str, store: LitestarStore, allow_override: bool = False) -> None:
        """See `StoreRegistry.register`."""
        self._registry.register(name, cast("Store", store), allow_override)


class StoreconfPlugin(InitPlugin):
    """Makes ``app.stores`` the registry of a layout, opened and closed with the application.

    The layout is read when the plugin is made, so that a wrong one keeps the application from starting. Sessions,
    response caching and rate limiting look their stores up by name: listed ones, or those of the default factory,
    which are closed with the others.
    """

    def __init__(self, source: Source = None, *, environment: str | None = None) -> None:
        self.registry: StoreRegistry = registry_from(source, environment)

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Give the application our registry; stores that it was given as well are registered there."""
        given = app_config.stores
        stores = self.registry.to_litestar()
        if isinstance(given, LitestarStoreRegistry | StoreRegistry):
            raise ValueError("pass Litestar either stores=… with a registry or StoreconfPlugin, not both")
        for name, store in (given or {}).items():
            stores.register(name, store)
        app_config.stores = stores
        # Litestar enters stores after the lifespans of the application, which may want to use them, and leaves them
        # before its listeners have come to their end and before its on_shutdown hooks, which may want to as well.
        lifetime = _RegistryLifetime(self.registry)
        app_config.lifespan.insert(0, lifetime)
        app_config.on_shutdown.append(lifetime.end)
        return app_config


class _RegistryLifetime(AbstractAsyncContextManager[None]):
    """Opens the registry before all else of an application, and closes it after all else.

    Litestar has no place that is left last, but runs the last of its on_shutdown hooks last, also after a start that
    failed. So leaving this only marks for the hook that there is something to close.
    """

    def __init__(self, registry: StoreRegistry) -> None:
        self._registry = registry
        self._left = 0  # how often it was entered and left; an application may run in several loops at once

    async def __aenter__(self) -> None:
        await self._registry.__aenter__()

    async def __aexit__(self, *_: object) -> None:
        self._left += 1

    async def end(self) -> None:
        """Close the registry, unless it was never opened; the last of the application's on_shutdown hooks."""
        if self._left:
            self._left -= 1
            await self._registry.__aexit__(None, None, None)
