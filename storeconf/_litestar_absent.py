"""What type checkers take for Litestar's classes of stores where Litestar is not installed; nothing at run time."""

__all__ = ["NamespacedStore", "Store"]


class Store:
    """Stands for ``litestar.stores.base.Store``."""


class NamespacedStore(Store):
    """Stands for ``litestar.stores.base.NamespacedStore``."""
