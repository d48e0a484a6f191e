"""The closed table of what a layout may name, so that no configuration can name Python code."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from storeconf import Capabilities

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KINDS", "Kind"]

OBJECTS: Final = frozenset(
    {"client", "collection_sanitization_strategy", "config", "connection", "credential", "credentials", "db",
     "default_collection", "disk_cache", "elasticsearch_client", "key_sanitization_strategy", "opensearch_client",
     "pool", "seed", "serialization_adapter", "session"}
)  # fmt: skip
"""Arguments that take Python objects, or that the backend itself needs."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One store of py-key-value: its location, its requirements, and its abilities.

    ``path`` is the argument that takes the directory or file, where there is one. ``extra`` is the library's own.
    """

    target: str
    extra: str
    path: str | None = None
    persistent: bool = True
    shared: bool = True
    lists: bool = False

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of a storeconf store on it: the library has no atomic operations."""
        return Capabilities(persistent=self.persistent, shared=self.shared, lists=self.lists)

    def load(self) -> type[Any]:
        """Import the class; ImportError when the library's extra is not installed."""
        module, _, name = self.target.partition(":")
        found: type[Any] = getattr(import_module(module), name)
        return found

    def options(self) -> frozenset[str]:
        """The constructor's arguments that a layout can give."""
        names = set(inspect.signature(self.load()).parameters) - {self.path}
        # An argument called ``db`` is a number for servers, and a database object where there is a path.
        return frozenset(names - (OBJECTS if self.path else OBJECTS - {"db"}))


def _of(name: str, cls: str, **rest: Any) -> Kind:
    return Kind(f"key_value.aio.stores.{name}:{cls}", name.replace("_", "-"), **rest)


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "aerospike": _of("aerospike", "AerospikeStore", lists=True),
        "azure_tables": _of("azure_tables", "AzureTablesStore"),
        "chdb": _of("chdb", "ChDBStore", path="database_path", shared=False),
        "disk": Kind("storeconf_key_value.disk:ListedDiskStore", "disk", path="directory", lists=True),
        "duckdb": _of("duckdb", "DuckDBStore", path="database_path", shared=False),
        "dynamodb": _of("dynamodb", "DynamoDBStore", shared=False),  # its reads may lag behind others' writes
        "elasticsearch": _of("elasticsearch", "ElasticsearchStore", shared=False, lists=True),  # likewise
        "filetree": _of("filetree", "FileTreeStore", path="data_directory", shared=False),
        "firestore": _of("firestore", "FirestoreStore"),
        "keyring": _of("keyring", "KeyringStore", shared=False),
        "memcached": _of("memcached", "MemcachedStore", persistent=False),
        "memory": _of("memory", "MemoryStore", persistent=False, shared=False, lists=True),
        "mongodb": _of("mongodb", "MongoDBStore"),
        "opensearch": _of(
            "opensearch", "OpenSearchStore", shared=False, lists=True
        ),  # its reads may lag behind others' writes
        "postgresql": _of("postgresql", "PostgreSQLStore"),
        "redis": _of("redis", "RedisStore", lists=True),
        "rocksdb": _of("rocksdb", "RocksDBStore", path="path", shared=False),
        "s3": _of("s3", "S3Store"),
        "valkey": _of("valkey", "ValkeyStore"),
        "vault": _of("vault", "VaultStore"),
    }
)
"""The stores by the names that layouts use."""
