"""Where a server store connects to and how, as plain values. Imports no client library."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Address", "SentinelOptions", "ServerOptions", "TlsOptions"]

Address = tuple[str, int]
"""A host and a port."""


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
