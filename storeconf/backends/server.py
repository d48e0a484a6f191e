"""The backends ``redis`` and ``valkey``: their settings, and how they become a store. Imports no client library."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError, core_schema

from storeconf._text import MASK
from storeconf.operations import Capabilities
from storeconf.plugin import EXCLUSIVE_FIELDS, Backend, ConfigPath, Duration, Secret, Settings, unchanged
from storeconf.stores.resp.options import Address, SentinelOptions, ServerOptions, ServerUrl, TlsOptions, plain_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

    from storeconf.plugin import BuildContext, ValueSource
    from storeconf.store import Store

__all__ = ["RedisBackend", "SentinelSettings", "ServerBackend", "TlsSettings", "UrlField", "ValkeyBackend"]

_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s:@/\[\]?#]+):(?P<port>[0-9]{1,5})")


_SAME = {
    "client_name": "client_name",
    "max_connections": "max_connections",
    "socket_connect_timeout": "connect_timeout",
    "socket_timeout": "command_timeout",
}
"""The URL's options that mean the same as a field."""


_SOURCES = ("username", "password", "url")
_SENTINEL_SOURCES = {"sentinel.username": "username", "sentinel.password": "password"}
"""The settings that are read again at each connection, where they come from files."""


def _address(text: str) -> Address:
    match = _HOST.fullmatch(text)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ValueError("write a node as host:port, for example 10.0.0.1:6379 or [::1]:6379")
    return match["host"].strip("[]").lower(), int(match["port"])


def _node(text: str) -> str:
    _address(text)
    return text


Node = Annotated[str, AfterValidator(_node)]


def _client_name(name: str) -> str:
    if not all("!" <= each <= "~" for each in name):
        raise ValueError("must contain ASCII characters only, and no spaces")
    return name


def _positive(span: timedelta) -> timedelta:
    if span <= timedelta(0):
        raise ValueError("must be more than zero")
    return span


Positive = Annotated[Duration, AfterValidator(_positive)]


class UrlField(ServerUrl):
    """The URL of one server; wherever it is shown, its secrets are masked."""

    __slots__ = ()

    @classmethod
    def _validate(cls, value: object) -> UrlField:
        if isinstance(value, cls):
            return value
        if not isinstance(value, str):
            raise PydanticCustomError("string_type", "the URL must be a string")
        if re.search(rf":{re.escape(MASK)}@|={re.escape(MASK)}(&|$)", value):
            raise PydanticCustomError("server_url", f"the URL has '{MASK}', which is only shown in place of a secret")
        try:
            return cls(str(value))
        except ValueError as error:
            raise PydanticCustomError("server_url", "{reason}", {"reason": str(error)}) from None

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string", "minLength": 1}


class TlsSettings(Settings):
    """TLS in detail."""

    ca_file: ConfigPath | None = Field(
        default=None,
        description="The certificates to trust (PEM); those of the system when absent.",
        examples=["/etc/ssl/ca.pem"],
    )
    cert_file: ConfigPath | None = Field(
        default=None, description="The client's own certificate (PEM).", examples=["/etc/ssl/client.pem"]
    )
    key_file: ConfigPath | None = Field(
        default=None, description="The private key of the client's certificate (PEM).", examples=["/etc/ssl/client.key"]
    )
    verify: Literal["full", "chain", "none"] = Field(
        default="full",
        description="What is checked of the server's certificate: chain and host name, the chain alone, or nothing.",
        examples=["full"],
    )

    @model_validator(mode="after")
    def _check(self) -> TlsSettings:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file needs cert_file")
        return self

    def options(self) -> TlsOptions:
        """Return the plain values."""
        files = (self.ca_file, self.cert_file, self.key_file)
        ca_file, cert_file, key_file = (None if path is None else str(path) for path in files)
        return TlsOptions(ca_file, cert_file, key_file, self.verify)


class SentinelSettings(Settings):
    """The Sentinels that know where the primary is."""

    nodes: list[Node] = Field(
        min_length=1, description="The Sentinels, each as host:port.", examples=[["10.0.0.1:26379", "10.0.0.2:26379"]]
    )
    service: str = Field(
        min_length=1, description="The name under which the Sentinels watch the primary.", examples=["mymaster"]
    )
    username: str | None = Field(default=None, description="The user at the Sentinels themselves.", examples=["app"])
    password: Secret | None = Field(
        default=None,
        description="The password at the Sentinels themselves; they inherit no credentials.",
        examples=["${SENTINEL_PASSWORD}"],
    )
    tls: bool | TlsSettings = Field(
        default=False, description="TLS to the Sentinels themselves: true, or its details.", examples=[True]
    )


class ServerBackend(Backend):
    """The common settings of the backends redis and valkey."""

    exclusive_groups: ClassVar[tuple[tuple[str, ...], ...]] = (("url", "cluster", "sentinel"),)
    capabilities: ClassVar[Capabilities] = Capabilities(persistent=True, shared=True, atomic=Capabilities.ALL_ATOMIC)

    url: UrlField | None = Field(
        default=None,
        description="One server: redis://, valkey://, with TLS rediss://, valkeys://, or unix:// and a socket's path.",
        examples=["redis://localhost:6379", "unix:///run/valkey.sock"],
    )
    cluster: list[Node] | None = Field(
        default=None,
        min_length=1,
        description="A Cluster: some of its nodes, each as host:port; the others are found.",
        examples=[["10.0.0.1:6379", "10.0.0.2:6379"]],
    )
    sentinel: SentinelSettings | None = Field(
        default=None,
        description="A primary that Sentinels watch, and that is followed through failovers.",
        examples=[{"nodes": ["10.0.0.1:26379"], "service": "mymaster"}],
    )
    username: str | None = Field(default=None, min_length=1, description="The user at the server.", examples=["app"])
    password: Secret | None = Field(
        default=None, description="The password at the server, any characters.", examples=["${file:/run/secrets/redis}"]
    )
    db: int | None = Field(
        default=None, ge=0, lt=1 << 31, description="The number of the database; 0 when absent.", examples=[0]
    )
    namespace: str = Field(
        description='The namespace that this root keeps all its keys in; "" for none, then it can be no parent.',
        examples=["shop"],
    )
    tls: bool | TlsSettings = Field(
        default=False, description="TLS to every server: true, or its details.", examples=[True, {"ca_file": "ca.pem"}]
    )
    connect_timeout: Positive = Field(
        default=timedelta(seconds=2),
        description="How long one attempt to connect may take, TLS and authentication included.",
        examples=["2s"],
    )
    command_timeout: Positive = Field(
        default=timedelta(seconds=5),
        description="How long a call may take, waiting for a connection and retries included.",
        examples=["5s", 0.5],
    )
    retries: int = Field(
        default=3,
        ge=0,
        le=100,
        description="How often a call is repeated after a lost connection, where repeating is safe.",
        examples=[3],
    )
    max_connections: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="The most connections for calls per event loop and node; one carries the calls of thousands of "
        "tasks.",
        examples=[1],
    )
    client_name: Annotated[str, AfterValidator(_client_name)] = Field(
        default="storeconf",
        max_length=128,
        json_schema_extra={"pattern": "^[!-~]*$"},
        description='The name that the server lists for our connections; "" keeps CLIENT commands from being sent.',
        examples=["shop-web"],
    )
    key_layout: Literal["storeconf", "litestar"] = Field(
        default="storeconf",
        description="How keys are written: storeconf (namespace::key), or litestar, to share an existing deployment's.",
        examples=["storeconf"],
    )

    @model_validator(mode="before")
    @classmethod
    def _default_namespace(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("key_layout") == "litestar" and "namespace" not in data:
            return {**data, "namespace": "LITESTAR"}
        return data

    @model_validator(mode="after")
    def _check(self) -> ServerBackend:
        given = [name for name in self.exclusive_groups[0] if getattr(self, name) is not None]
        if len(given) != 1:
            said = f"give only one of {', '.join(given)}" if given else "set one of url, cluster or sentinel"
            raise PydanticCustomError(EXCLUSIVE_FIELDS, "{said}", {"said": said})
        if self.url is not None:
            self._check_url(self.url)
        if self.cluster is not None and self.db:
            raise ValueError("db must be 0: a Cluster has no other databases")
        return self

    def _check_url(self, url: UrlField) -> None:
        given = self.model_fields_set
        both = sorted(url.credentials & given)
        if not both and url.credentials and not given.isdisjoint(("username", "password")):
            both = ["credentials"]
        if url.database is not None and "db" in given:
            both.append("db")
        if url.options:
            both += [field for option, field in _SAME.items() if option in url.options and field in given]
        if both:
            raise ValueError(f"{' and '.join(both)}: given both in the URL and as a field")
        if url.scheme == "unix" and self.tls is not False:
            raise ValueError("tls: there is none on a unix socket")
        if url.tls and "tls" in given and self.tls is False:
            raise ValueError("tls: false forbids what the URL's scheme asks for")
        ssl_options = [name for name in url.options if name.startswith("ssl_")]
        if ssl_options and (isinstance(self.tls, TlsSettings) or not (url.tls or self.tls)):
            raise ValueError(
                f"the URL's {', '.join(ssl_options)} "
                + ("contradicts the field tls" if self.tls else "needs a scheme with TLS, as rediss:// has")
            )

    def adopt(
        self, root: Store, context: BuildContext, before: Backend, context_before: BuildContext
    ) -> Callable[[], None] | None:
        """Replace the connections, unless only credentials have changed that are read again for each of them.

        Another name of a node that was listed before is the same Cluster.
        """
        from storeconf.stores.resp.store import ServerStore

        if not isinstance(root, ServerStore) or not isinstance(before, ServerBackend):
            return None
        if self.key_layout != before.key_layout or set(self.locations()).isdisjoint(before.locations()):
            return None
        sources = context.sources
        if sources == context_before.sources and _without(self, sources) == _without(before, sources):
            return unchanged
        return partial(root.reconnect, partial(self.options, context.sources))

    def options(self, sources: Mapping[str, ValueSource] | None = None) -> ServerOptions:
        """Return where and how to connect, in the stores' form; parts of it are read again at each connection."""
        sentinel = self.sentinel
        found = sources or {}
        return ServerOptions(
            url=None if self.url is None else self.url.get_secret_value(),
            cluster=None if self.cluster is None else _addresses(self.cluster),
            sentinel=None
            if sentinel is None
            else SentinelOptions(
                _addresses(sentinel.nodes),
                sentinel.service,
                sentinel.username,
                _revealed(sentinel.password),
                _tls(sentinel.tls),
                {name: found[field] for field, name in _SENTINEL_SOURCES.items() if field in found},
            ),
            username=self.username,
            password=_revealed(self.password),
            db=self.db,
            tls=_tls(self.tls),
            connect_timeout=self.connect_timeout.total_seconds(),
            command_timeout=self.command_timeout.total_seconds(),
            retries=self.retries,
            max_connections=self.max_connections,
            client_name=self.client_name,
            sources={name: found[name] for name in _SOURCES if name in found},
        )

    def location(self) -> tuple[str, ...]:
        """The server, the database, and the namespace where there is one."""
        return self.locations()[0]

    def locations(self) -> tuple[tuple[str, ...], ...]:
        """The same for each node by which a Cluster, or what Sentinels watch, is named."""
        db = self.db or 0
        if self.url is not None:
            db = db or self.url.database or 0
            host = plain_host(self.url.host or "")
            places = [f"unix:{os.path.realpath(self.url.path)}" if self.url.path else f"{host}:{self.url.port}"]
        elif self.cluster is not None:
            places = _nodes(self.cluster)
        else:
            assert self.sentinel is not None
            places = [f"{self.sentinel.service} of {node}" for node in _nodes(self.sentinel.nodes)]
        return tuple((place, str(db), *filter(None, [self.namespace])) for place in places)

    def required_packages(self) -> Mapping[str, str]:
        """The client library, which has the name of the type."""
        return {self.type: f"storeconf[{self.type}]"}

    def warnings(self) -> list[tuple[str, str]]:
        """Settings that are allowed but unwise."""
        found = []
        for field, tls in (("tls", self.tls), ("sentinel.tls", self.sentinel.tls if self.sentinel else False)):
            if isinstance(tls, TlsSettings) and tls.verify == "none":
                found.append((f"{field}.verify", "verify: none accepts any server's certificate, also an attacker's"))
            if isinstance(tls, TlsSettings):
                files = (
                    ("ca_file", None if tls.verify == "none" else tls.ca_file),
                    ("cert_file", tls.cert_file),
                    ("key_file", tls.key_file),
                )
                found += ((f"{field}.{name}", f"{name} does not exist") for name, path in files if _is_missing(path))
        options = {} if self.url is None else self.url.options
        for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
            if _is_missing(options.get(name)):
                found.append(("url", f"the file of the URL's option {name} does not exist"))
        connect = float(options.get("socket_connect_timeout", self.connect_timeout.total_seconds()))
        command = float(options.get("socket_timeout", self.command_timeout.total_seconds()))
        if connect > command and ("connect_timeout" in self.model_fields_set or "socket_connect_timeout" in options):
            field = "connect_timeout" if "connect_timeout" in self.model_fields_set else "url"
            text = f"connecting may take {connect:g} s, but a call, connecting included, only {command:g} s"
            found.append((field, text))
        for field, holder in (("", self), ("sentinel.", self.sentinel)):
            if holder is not None and holder.username is not None and holder.password is None:
                found.append((f"{field}username", "there is a username without a password, so no login is sent"))
        if self.url is not None and self.url.options.get("ssl_cert_reqs") == "none":
            found.append(("url", "ssl_cert_reqs=none accepts any server's certificate, also an attacker's"))
        if self.url is not None and self.url.credentials == {"username"} and "username" in options:
            found.append(("url", "the URL has the option username without a password, so no login is sent"))
        elif self.url is not None and self.url.credentials == {"username"}:
            found.append(("url", "the URL has a user name without a password; a password alone needs a colon: ://:…@"))
        if self.key_layout == "litestar":
            found.append(
                (
                    "key_layout",
                    "litestar joins names by '_', so namespaces whose names hold '_' can share keys; "
                    "use it only to move from an existing deployment",
                )
            )
        return found


class RedisBackend(ServerBackend):
    """Keys and values on Redis, shared by all processes that use the same server, database and namespace."""

    type: Literal["redis"] = Field(default="redis", description="The kind of store.", examples=["redis"])

    def build(self, context: BuildContext) -> Store:
        """Make the store; the package ``redis`` must be installed."""
        from storeconf.stores.resp.store import RedisStore

        return RedisStore.from_options(
            partial(self.options, context.sources), namespace=self.namespace or None, key_layout=self.key_layout
        )


class ValkeyBackend(ServerBackend):
    """Keys and values on Valkey, shared by all processes that use the same server, database and namespace."""

    type: Literal["valkey"] = Field(default="valkey", description="The kind of store.", examples=["valkey"])

    def build(self, context: BuildContext) -> Store:
        """Make the store; the package ``valkey`` must be installed."""
        from storeconf.stores.resp.store import ValkeyStore

        return ValkeyStore.from_options(
            partial(self.options, context.sources), namespace=self.namespace or None, key_layout=self.key_layout
        )


def _without(backend: ServerBackend, sources: Mapping[str, ValueSource]) -> tuple[object, ...]:
    """The settings of a backend without those that are read again for each connection."""
    plain: dict[str, Any] = {name: None for name in _SOURCES if name in sources}
    server: object = None
    if "url" in sources and backend.url is not None:
        server = backend.url.server
    if backend.sentinel is not None:
        names = [name for field, name in _SENTINEL_SOURCES.items() if field in sources]
        plain["sentinel"] = backend.sentinel.model_copy(update=dict.fromkeys(names))
    return backend.model_copy(update=plain), server


def _is_missing(path: os.PathLike[str] | str | None) -> bool:
    return path is not None and not Path(path).exists()


def _addresses(nodes: Iterable[str]) -> tuple[Address, ...]:
    return tuple(_address(node) for node in nodes)


def _nodes(nodes: Iterable[str]) -> list[str]:
    return sorted(f"{plain_host(host)}:{port}" for host, port in _addresses(nodes))


def _revealed(secret: Secret | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _tls(tls: bool | TlsSettings) -> TlsOptions | None:
    return tls.options() if isinstance(tls, TlsSettings) else TlsOptions() if tls else None
