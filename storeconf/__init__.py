"""storeconf: an application's key/value stores, described in YAML or TOML, compiled into a live async registry.

Every public name is importable from here. Each is imported on first use, so that ``import storeconf`` costs almost
nothing and the stores can be used without the configuration's libraries.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storeconf._lock import StoreLock as StoreLock
    from storeconf._lock import lock as lock
    from storeconf._typed import CachedFunction as CachedFunction
    from storeconf._typed import TypedStore as TypedStore
    from storeconf._typed import cached as cached
    from storeconf._typed import typed as typed
    from storeconf._watch import watch as watch
    from storeconf.build import ReloadResult as ReloadResult
    from storeconf.catalog import Catalog as Catalog
    from storeconf.catalog import CatalogEntry as CatalogEntry
    from storeconf.diagnostics import Diagnostic as Diagnostic
    from storeconf.diagnostics import Location as Location
    from storeconf.diagnostics import Note as Note
    from storeconf.diagnostics import Origin as Origin
    from storeconf.errors import ConfigError as ConfigError
    from storeconf.errors import Damage as Damage
    from storeconf.errors import PluginError as PluginError
    from storeconf.errors import StoreClosedError as StoreClosedError
    from storeconf.errors import StoreconfError as StoreconfError
    from storeconf.errors import StoreDeadlockError as StoreDeadlockError
    from storeconf.errors import StoreError as StoreError
    from storeconf.errors import StoreLockBusyError as StoreLockBusyError
    from storeconf.errors import StoreLockLostError as StoreLockLostError
    from storeconf.errors import StoreReadOnlyError as StoreReadOnlyError
    from storeconf.errors import StoreRefusedError as StoreRefusedError
    from storeconf.errors import StoreTimeoutError as StoreTimeoutError
    from storeconf.errors import StoreUnavailableError as StoreUnavailableError
    from storeconf.errors import StoreValueError as StoreValueError
    from storeconf.errors import UnknownStoreError as UnknownStoreError
    from storeconf.errors import UnsupportedOperationError as UnsupportedOperationError
    from storeconf.layout import Layout as Layout
    from storeconf.layout import read_layout as read_layout
    from storeconf.middleware import GuardedStore as GuardedStore
    from storeconf.middleware import StoreWrapper as StoreWrapper
    from storeconf.middleware.coded import CodecStore as CodecStore
    from storeconf.middleware.mirror import MirrorReport as MirrorReport
    from storeconf.middleware.mirror import mirror_report as mirror_report
    from storeconf.operations import DELETE as DELETE
    from storeconf.operations import KEEP as KEEP
    from storeconf.plan import Plan as Plan
    from storeconf.plugin import Backend as Backend
    from storeconf.plugin import BuildContext as BuildContext
    from storeconf.plugin import ConfigPath as ConfigPath
    from storeconf.plugin import Duration as Duration
    from storeconf.plugin import Middleware as Middleware
    from storeconf.plugin import ResolveContext as ResolveContext
    from storeconf.plugin import Resolver as Resolver
    from storeconf.plugin import Secret as Secret
    from storeconf.plugin import Settings as Settings
    from storeconf.plugin import Size as Size
    from storeconf.plugin import StoreName as StoreName
    from storeconf.registry import StoreRegistry as StoreRegistry
    from storeconf.registry import load as load
    from storeconf.store import Capabilities as Capabilities
    from storeconf.store import Expiry as Expiry
    from storeconf.store import ExpiryRules as ExpiryRules
    from storeconf.store import NamespacedStore as NamespacedStore
    from storeconf.store import PingResult as PingResult
    from storeconf.store import Store as Store
    from storeconf.store import StoreBase as StoreBase
    from storeconf.store import Value as Value
    from storeconf.store import next_counter as next_counter
    from storeconf.store import run_shielded as run_shielded
    from storeconf.store import survives_delete_all as survives_delete_all
    from storeconf.stores import FileStore as FileStore
    from storeconf.stores import MemoryStore as MemoryStore
    from storeconf.stores import RedisStore as RedisStore
    from storeconf.stores import ValkeyStore as ValkeyStore

__version__ = "0.1.0"

_HOME = {
    "storeconf.diagnostics": ("Diagnostic", "Location", "Note", "Origin"),
    "storeconf._lock": ("StoreLock", "lock"),
    "storeconf._typed": ("CachedFunction", "TypedStore", "cached", "typed"),
    "storeconf._watch": ("watch",),
    "storeconf.catalog": ("Catalog", "CatalogEntry"),
    "storeconf.errors": (
        "ConfigError",
        "Damage",
        "PluginError",
        "StoreClosedError",
        "StoreDeadlockError",
        "StoreError",
        "StoreLockBusyError",
        "StoreLockLostError",
        "StoreReadOnlyError",
        "StoreRefusedError",
        "StoreTimeoutError",
        "StoreUnavailableError",
        "StoreValueError",
        "StoreconfError",
        "UnknownStoreError",
        "UnsupportedOperationError",
    ),
    "storeconf.layout": ("Layout", "read_layout"),
    "storeconf.middleware.coded": ("CodecStore",),
    "storeconf.middleware": ("GuardedStore", "StoreWrapper"),
    "storeconf.middleware.mirror": ("MirrorReport", "mirror_report"),
    "storeconf.operations": ("DELETE", "KEEP"),
    "storeconf.plan": ("Plan",),
    "storeconf.plugin": (
        "Backend",
        "BuildContext",
        "ConfigPath",
        "Duration",
        "Middleware",
        "ResolveContext",
        "Resolver",
        "Secret",
        "Settings",
        "Size",
        "StoreName",
    ),
    "storeconf.build": ("ReloadResult",),
    "storeconf.registry": ("StoreRegistry", "load"),
    "storeconf.store": (
        "Capabilities",
        "Expiry",
        "ExpiryRules",
        "NamespacedStore",
        "PingResult",
        "Store",
        "StoreBase",
        "Value",
        "next_counter",
        "run_shielded",
        "survives_delete_all",
    ),
    "storeconf.stores": ("FileStore", "MemoryStore", "RedisStore", "ValkeyStore"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Backend",
    "BuildContext",
    "CachedFunction",
    "Capabilities",
    "Catalog",
    "CatalogEntry",
    "CodecStore",
    "ConfigError",
    "ConfigPath",
    "DELETE",
    "Damage",
    "Diagnostic",
    "Duration",
    "Expiry",
    "ExpiryRules",
    "FileStore",
    "GuardedStore",
    "KEEP",
    "Layout",
    "Location",
    "MemoryStore",
    "Middleware",
    "MirrorReport",
    "NamespacedStore",
    "Note",
    "Origin",
    "PingResult",
    "Plan",
    "PluginError",
    "RedisStore",
    "ReloadResult",
    "ResolveContext",
    "Resolver",
    "Secret",
    "Settings",
    "Size",
    "Store",
    "StoreBase",
    "StoreClosedError",
    "StoreDeadlockError",
    "StoreError",
    "StoreLock",
    "StoreLockBusyError",
    "StoreLockLostError",
    "StoreName",
    "StoreReadOnlyError",
    "StoreRefusedError",
    "StoreRegistry",
    "StoreTimeoutError",
    "StoreUnavailableError",
    "StoreValueError",
    "StoreWrapper",
    "StoreconfError",
    "TypedStore",
    "UnknownStoreError",
    "UnsupportedOperationError",
    "ValkeyStore",
    "Value",
    "__version__",
    "cached",
    "load",
    "lock",
    "mirror_report",
    "next_counter",
    "read_layout",
    "run_shielded",
    "survives_delete_all",
    "typed",
    "watch",
]


if not TYPE_CHECKING:  # a type checker that saw it would accept every misspelt name

    def __getattr__(name: str) -> Any:
        module = _MODULE_OF.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(module), name)
        return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
