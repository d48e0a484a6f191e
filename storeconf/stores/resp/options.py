"""Where a server store connects to and how, as plain values. Imports no client library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from storeconf.plugin import ValueSource

__all__ = ["Address", "SentinelOptions", "ServerOptions", "Sources", "TlsOptions", "labelled"]

Address = tuple[str, int]
"""A host and a port."""

Sources = Mapping[str, "ValueSource"]
"""Which of ``username``, ``password`` and ``url`` are read again for each connection, and how."""


def labelled(address: str, store: str) -> str:
    """Return what messages call a server at ``address`` that ``store`` uses."""
    return f"{address} (store {store!r})" if store else address


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """TLS: whom to trust, who we are, and how much of the server's certificate is checked."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify: Literal["full", "chain", "none"] = "full"


@dataclass(frozen=True, slots=True)
class SentinelOptions:
    """The Sentinels and the name under which they watch the server."""

    nodes: tuple[Address, ...]
    service: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: TlsOptions | None = None
    sources: Sources = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """One server, Cluster or Sentinel service, and how to talk to it. Exactly one of the first three is given.

    Times are in seconds. ``port`` replaces the URL's. ``tls`` None leaves it to the URL's scheme. An empty
    ``client_name`` keeps the store from sending any CLIENT command, for servers that forbid them.
    """

    url: str | None = field(default=None, repr=False)
    cluster: tuple[Address, ...] | None = None
    sentinel: SentinelOptions | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int | None = None
    port: int | None = None
    tls: TlsOptions | None = None
    connect_timeout: float = 2.0
    command_timeout: float = 5.0
    retries: int = 3
    max_connections: int = 1
    client_name: str = "storeconf"
    sources: Sources = field(default_factory=dict, repr=False)
