"""`FileStore`: the store's half that runs in event loops. The file work is done by a worker thread."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from storeconf.store import Capabilities, Store

if TYPE_CHECKING:
    import os

__all__ = ["FileStore"]


class FileStore(Store):
    """Keeps each key in a file of its own, below the directory ``path``."""

    capabilities: ClassVar[Capabilities] = Capabilities(persistent=True, shared=True, atomic=Capabilities.ALL_ATOMIC)

    def __init__(
        self,
        path: str | os.PathLike[str],
        create_directories: bool = False,
        *,
        durability: Literal["flush", "fsync"] = "flush",
        mode: int = 0o700,
    ) -> None:
        super().__init__()
        self.path = Path(path)
        self.create_directories = create_directories
        self.durability = durability
        self.mode = mode
