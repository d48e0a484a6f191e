"""What type checkers take for Litestar's class of stores where Litestar is not installed; nothing at run time."""

__all__ = ["NamespacedStore"]


class NamespacedStore:
    """Stands for ``litestar.stores.base.NamespacedStore``."""
