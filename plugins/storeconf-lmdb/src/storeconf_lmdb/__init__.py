"""An LMDB backend for storeconf: a memory-mapped file that several processes may use at once."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from storeconf import Backend, BuildContext, ConfigPath, Size, Store
from storeconf_lmdb.store import MAP_SIZE, LmdbStore

__all__ = ["LmdbBackend", "LmdbStore"]


class LmdbBackend(Backend):
    """Stores in an LMDB database."""

    capabilities = LmdbStore.capabilities

    type: Literal["lmdb"] = "lmdb"
    path: ConfigPath = Field(
        description="The directory of the database; it is created when it is missing.", examples=["var/sessions"]
    )
    max_size: Size | None = Field(
        default=None,
        ge=MAP_SIZE,
        description="The largest size of the database file, which grows up to it; without it, the disk is the limit.",
        examples=["10GiB"],
    )
    durability: Literal["flush", "fsync"] = Field(
        default="flush",
        description="`flush`: a write survives the process. `fsync`: it and the database survive the machine.",
        examples=["fsync"],
    )

    def build(self, context: BuildContext) -> Store:
        """Make the store; the database is opened with the registry."""
        return LmdbStore(self.path, max_size=self.max_size, durability=self.durability)

    def location(self) -> tuple[str, ...]:
        """Two roots on one database would share keys."""
        return ("lmdb", str(self.path))
