"""A store that keeps each key in a file of its own, below one directory that several processes may share."""

from __future__ import annotations

from storeconf.stores.file.store import FileStore

__all__ = ["FileStore"]
