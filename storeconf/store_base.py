"""The base class of a backend's store: the `Hooks` that it implements, behind the public methods of `Store`.

A backend that is faster when it takes over a public method may override that too; the conformance suite holds it to the
same promises.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any, ClassVar, Final, Self

from storeconf._arguments import check_name
from storeconf._contract import OWN_ATTRIBUTES, check_store_class
from storeconf._lifecycle import OPEN
from storeconf._root import CHANGES, RootLife, maker_of, raise_foreign, told
from storeconf.errors import StoreconfError
from storeconf.operations import Hooks
from storeconf.store import Store

__all__ = ["StoreBase", "introduce_to_litestar", "taken_name"]


def introduce_to_litestar() -> None:
    """Make every store one of Litestar's for ``isinstance``, if the application has imported Litestar's by now."""
    base = sys.modules.get("litestar.stores.base")
    if base is not None:
        base.NamespacedStore.register(Store)


_FREE: Final = frozenset(
    {
        "_get_waits",
        "capabilities",
        "default_expiry",
        "expiry_rules",
        "notifies",
        "on_damage",
        "synchronous_operations",
        "tolerates_outages",
        "warn_if_left_open",
    }
)
"""The attributes that a backend's store may set as it likes."""


def taken_name(store: Store) -> str | None:
    """The name of an attribute that storeconf keeps for itself, and that a store's own code has set; or None."""
    path, own = store.__dict__.get("_path"), store.__dict__
    expected = {
        "_life": isinstance(own.get("_life"), RootLife),
        "_root": isinstance(own.get("_root"), StoreBase),
        "_hooks": isinstance(own.get("_hooks"), StoreBase),
        "_path": isinstance(path, tuple) and all(isinstance(name, str) for name in path),
    }
    return next((name for name, right in expected.items() if not right), None)


class StoreBase(Store, Hooks):
    """A store that owns a resource; its namespaces are handles of the same class. Implement the ``do_*`` methods."""

    synchronous_operations: ClassVar[frozenset[str]] = frozenset()
    """Operations of exactly this class that end without giving way to the event loop: a time limit can pass them by."""

    notifies: ClassVar[frozenset[str]] = frozenset()
    """Public operations that exactly this class takes over and that tell of changes; others are made to."""

    warn_if_left_open: ClassVar[bool] = True
    """Whether a store that was opened by a call alone deserves a ResourceWarning when it is left open: false where
    nothing needs to be given back. One that somebody entered and never left deserves it anyway."""

    _root: StoreBase

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_store_class(cls, Store, _FREE)
        own = vars(cls)
        if "get" in own:
            cls._get_waits = "get" not in own.get("synchronous_operations", ())
        for name in (CHANGES & own.keys()) - own.get("notifies", frozenset()):
            setattr(cls, name, told(name, own[name]))

    def __init__(self) -> None:
        taken = next((name for name in OWN_ATTRIBUTES if name in self.__dict__), None)
        if taken is not None:
            raise TypeError(f"{type(self).__name__} sets an attribute {taken!r}, a name that storeconf uses itself")
        introduce_to_litestar()
        self._become(RootLife(self), self, (), None)

    def _become(self, life: RootLife, root: StoreBase, path: tuple[str, ...], name: str | None) -> None:
        self._life, self._root, self._hooks, self._path, self._name = life, root, root, path, name

    @property
    def root(self) -> StoreBase:
        """The store that owns the resource which this one uses."""
        return self._root

    def with_namespace(self, namespace: str) -> Self:
        """Return the store of a namespace below this one, on the same resource; see `Store.with_namespace`."""
        child = type(self).__new__(type(self))
        name = None if self._name is None else f"{self._name}/{namespace}"
        child._become(self._life, self._root, (*self._path, check_name(namespace)), name)  # noqa: SLF001  # of this class
        if self.capabilities is not type(self).capabilities:  # one store's own
            child.capabilities = self.capabilities
        try:
            child.do_attach(self)
        except StoreconfError:
            raise
        except Exception as error:  # noqa: BLE001  # a backend's own code may fail in any way
            raise_foreign(error, self, "with_namespace", maker_of(self))
        return child

    def __del__(self) -> None:
        if getattr(self, "_root", None) is not self or self._life.state != OPEN:
            return
        if self.warn_if_left_open or self._life.guests > 0:
            warnings.warn(f"{self!r} was left open", ResourceWarning, stacklevel=2, source=self)
