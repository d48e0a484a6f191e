"""A memcached backend for storeconf: the model of a store that can't list its keys."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field, field_validator

from storeconf import Backend, BuildContext, Duration, Store
from storeconf_memcached.store import MemcachedStore

__all__ = ["MemcachedBackend", "MemcachedStore"]


class MemcachedBackend(Backend):
    """Stores in a memcached server, 1.6 or newer."""

    capabilities = MemcachedStore.capabilities

    type: Literal["memcached"] = "memcached"
    address: str = Field(
        default="localhost:11211",
        description="The server, as `host:port`, or the path of its Unix socket.",
        examples=["cache.internal:11211", "/run/memcached/socket"],
    )
    timeout: Duration = Field(
        default=timedelta(seconds=2), description="How long connecting may take, and each call.", examples=["500ms"]
    )

    @field_validator("address")
    @classmethod
    def _known(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not value.startswith("/") and not (host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError("an address is host:port, or the path of a Unix socket")
        return value

    def build(self, context: BuildContext) -> Store:
        """Make the store; it connects with its first call."""
        return MemcachedStore(self.address, timeout=self.timeout.total_seconds())

    def location(self) -> tuple[str, ...]:
        """Two roots on one server share keys, unless they have namespaces of their own."""
        base = ("memcached", self.address)
        return (*base, self.namespace) if self.namespace else base
