"""Where a server store connects to, how, and as whom: plain values, the URL that gives them, and credentials.

Credentials are fixed, read again from files for each connection, or given by a provider. Imports no client library.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from storeconf._pace import OwnThread
from storeconf._text import MASK

if TYPE_CHECKING:
    from collections.abc import Callable

    from storeconf.plugin import ValueSource

__all__ = [
    "Address",
    "Credentials",
    "Login",
    "SentinelOptions",
    "ServerOptions",
    "ServerUrl",
    "Sources",
    "TlsOptions",
    "labelled",
    "plain_host",
]

Address = tuple[str, int]
"""A host and a port."""

Sources = Mapping[str, "ValueSource"]
"""Which of ``username``, ``password`` and ``url`` are read again for each connection, and how."""


def plain_host(name: str) -> str:
    """Return one spelling for all spellings of a host that are known to mean the same."""
    name = name.lower().removesuffix(".")
    if ":" in name:
        with suppress(ValueError):
            address = IPv6Address(name)
            name = str(address.ipv4_mapped or address)
    return "localhost" if name in ("127.0.0.1", "::1") else name


def labelled(address: str, store: str) -> str:
    """Return the name in messages of a server at ``address`` that ``store`` uses."""
    return f"{address} (store {store!r})" if store else address


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """TLS: the trusted authorities, our own certificate, and how much of the server's certificate is checked."""

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


SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix")
DEFAULT_PORT = 6379


def _natural(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,9}", text) is not None


def _positive(text: str) -> bool:
    return _natural(text) and int(text) > 0


def _seconds(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text) is not None and float(text) > 0


def _boolean(text: str) -> bool:
    return text.lower() in ("true", "false", "yes", "no", "1", "0")


_OPTIONS: dict[str, Callable[[str], bool]] = {
    "db": _natural,
    "username": bool,
    "password": bool,
    "client_name": bool,
    "max_connections": _positive,
    "socket_connect_timeout": _seconds,
    "socket_timeout": _seconds,
    "ssl_ca_certs": bool,
    "ssl_cert_reqs": lambda text: text in ("none", "required"),
    "ssl_certfile": bool,
    "ssl_check_hostname": _boolean,
    "ssl_keyfile": bool,
}
"""The query options that are understood, and the form of their values."""


_ORDINARY = re.compile(r"((?:redis|valkey)s?)://([a-z0-9.-]+)(?::([1-9][0-9]{0,3}|[1-5][0-9]{4}))?(?:/([0-9]{1,9})?)?")
"""A URL with an address and nothing else: most layouts have such, hundreds of times."""


class ServerUrl:
    """The URL of one server.

    Masks its password, and the values of its query options; also a user name without a password, because
    it may be a password without its colon.
    """

    __slots__ = ("_raw", "_shown", "credentials", "database", "host", "options", "path", "port", "scheme", "username")

    def __init__(self, raw: str) -> None:
        self._raw = raw
        self.username: str | None = None
        self.host: str | None = None
        self.port: int | None = None
        self.path: str | None = None
        self.options: dict[str, str] = {}
        self.credentials: frozenset[str] = frozenset()
        """Which of ``username`` and ``password`` the URL gives."""
        if ordinary := _ORDINARY.fullmatch(raw):
            self.scheme, self.host, port, database = ordinary.groups()
            self.port = int(port or DEFAULT_PORT)
            self.database = int(database) if database else None
            self._shown = raw
        else:
            self._read(raw)

    def _read(self, raw: str) -> None:
        scheme, separator, rest = raw.partition("://")
        self.scheme = scheme.lower()
        if not separator or self.scheme not in SCHEMES:
            raise ValueError(f"a server's URL begins with one of {', '.join(f'{name}://' for name in SCHEMES)}")
        if raw != raw.rstrip():
            end = "a carriage return: the text was probably written on Windows" if raw.endswith("\r") else "whitespace"
            raise ValueError(f"the URL ends in {end}; remove it")
        if "$(" in raw:
            raise ValueError(
                "the URL contains '$(', and $(NAME) is not substituted here; write ${NAME}, or set the variable where "
                "Kubernetes replaces it"
            )
        if " " in raw or not raw.isprintable():  # every other space counts as not printable
            raise _unescaped()
        if "#" in rest or "@" in rest.partition("?")[2] or rest.partition("?")[0].count("@") > 1:
            raise _unescaped()
        authority = re.split("[/?]", rest)[0]
        hosts = authority.rpartition("@")[2]
        if re.search("[,;]", hosts) and "@" not in rest[len(authority) :] and self.scheme != "unix":
            raise ValueError(
                "the URL names several hosts, but a URL is for one server; list the nodes of a Cluster under "
                "'cluster', or the Sentinels under 'sentinel'"
            )
        port_text = re.fullmatch(r"(?:[^@]*@)?(?:\[[^\[\]@]*\]|[^:@\[\]]*):([0-9]+)", authority)
        worded = re.fullmatch(
            r"(?:[^@]*@)?(?:\[[^\[\]@]*\]|[^:@\[\]]*):([^0-9:@][^:@]*|[0-9]+[^0-9:@][^:@]*)", authority
        )
        if worded is not None and "@" not in rest[len(authority) :] and self.scheme != "unix":
            raise ValueError("the URL can't be read: its port must be a number from 1 to 65535")
        if port_text is not None and self.scheme != "unix" and not 0 < int(port_text[1][:9]) < 65536:
            raise ValueError("the URL's port must be a number from 1 to 65535")
        try:
            parts = urlsplit(raw)
            port = parts.port
            host = parts.hostname
        except ValueError:
            # The driver's and Python's own texts quote the part of the URL that they could not read.
            raise _unescaped() from None
        if "@" in parts.path and self.scheme != "unix":
            raise _unescaped()
        userinfo, _, netloc = parts.netloc.rpartition("@")
        username, _, password = userinfo.partition(":")
        self.username = unquote(username) if username else None
        self.options = self._read_options(parts.query)
        if self.scheme == "unix":
            self.path = unquote(parts.path)
            if not self.path:
                raise ValueError("a unix:// URL needs the path of the socket: unix:///run/valkey.sock")
            if host:
                raise ValueError("a unix:// URL has three slashes: unix:///run/valkey.sock")
            database = ""
        else:
            if not host:
                raise ValueError("the URL has no host")
            self.host, self.port = host, port if port is not None else DEFAULT_PORT
            database = parts.path.strip("/")
            if database and not _natural(database):
                raise ValueError("what follows the host in the URL must be the number of a database, as in host:6379/0")
        if database and "db" in self.options:
            raise ValueError("the URL names the database twice, in its path and as an option")
        given = {name for name, value in (("username", username), ("password", password)) if value}
        if not given.isdisjoint(self.options):
            raise ValueError("the URL gives a credential twice, before the host and as an option")
        self.credentials = frozenset(given | (self.options.keys() & {"username", "password"}))
        number = database or self.options.get("db")
        self.database = int(number) if number else None
        user = f"{username}:{MASK}@" if password else f"{MASK}@" if username else ""
        query = "?" + "&".join(f"{name}={MASK}" for name in self.options) if self.options else ""
        self._shown = f"{scheme}://{user}{netloc}{parts.path}{query}"

    @staticmethod
    def _read_options(query: str) -> dict[str, str]:
        options: dict[str, str] = {}
        for name, value in parse_qsl(query, keep_blank_values=True):
            check = _OPTIONS.get(name)
            if check is None:
                shown = f"{name!r}" if re.fullmatch(r"[a-z][a-z_]{0,40}", name) else "an unknown one"
                raise ValueError(f"the URL has an option that is not understood: {shown}; known: {', '.join(_OPTIONS)}")
            if name in options:
                raise ValueError(f"the URL gives the option {name} twice")
            if not check(value):
                raise ValueError(f"the URL's option {name} has a value that is not understood")
            options[name] = value
        return options

    def get_secret_value(self) -> str:
        """Return the URL as it was written, with its password."""
        return self._raw

    @property
    def login(self) -> tuple[str | None, str | None]:
        """The user and the password."""
        userinfo = urlsplit(self._raw).netloc.rpartition("@")[0]
        username, _, password = userinfo.partition(":")
        return (
            unquote(username or self.options.get("username", "")) or None,
            unquote(password or self.options.get("password", "")) or None,
        )

    @property
    def server(self) -> tuple[object, ...]:
        """All that is not the user and the password: two URLs with the same lead to the same data."""
        options = {name: value for name, value in self.options.items() if name not in ("username", "password")}
        return (self.tls, self.host, self.port, self.path, self.database, options)

    @property
    def tls(self) -> bool:
        """Whether the scheme asks for TLS."""
        return self.scheme in ("rediss", "valkeys")

    def __str__(self) -> str:
        return self._shown

    def __repr__(self) -> str:
        return f"ServerUrl({self._shown!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ServerUrl) and other._raw == self._raw

    def __hash__(self) -> int:
        return hash(self._raw)


def _unescaped() -> ValueError:
    return ValueError(
        "the URL can't be read: it may hold characters of a username or password that need escaping; "
        "the fields 'username' and 'password' take them as they are"
    )


# ---------------------------------------------------------------- a store's credentials at its server


log: logging.Logger = logging.getLogger("storeconf.stores")


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    """The arguments of AUTH: none, a password, or a user and a password. Its repr shows none, so no traceback does."""

    words: tuple[str, ...]


class Credentials:
    """The user and the password of all connections to a server, a Cluster or the Sentinels, in every event loop.

    ``sources`` has those that came from files: ``username``, ``password``, and ``url`` where the URL holds them.
    ``provider`` is a credential provider of the client libraries and takes the place of all others.
    """

    def __init__(
        self,
        username: str | None = None,
        password: str | None = None,
        *,
        provider: Any = None,
        url: str | None = None,
        sources: Mapping[str, ValueSource] | None = None,
    ) -> None:
        self.username = username
        self.password = password
        self.provider = provider
        self.accepted = False
        """Whether a server has accepted them: a login that is refused later is one that is being changed."""
        self._url = None if url is None else ServerUrl(url)
        self._sources = sources or {}
        self._reading = OwnThread(self._read, "storeconf-credentials")

    async def login(self, label: str, within: float) -> Login:
        """Return the present arguments of AUTH, read from files within ``within`` seconds. ``label`` is for warnings.

        A file that can't be read leaves the last value, with a warning.
        """
        if self.provider is not None:
            given = self.provider.get_credentials_async()
            return Login(tuple(await given if inspect.isawaitable(given) else given))
        if self._sources:
            try:
                async with asyncio.timeout(within):
                    failures = await self._reading.run()
            except TimeoutError:
                failures = [f"{self._names()} can't be read: nothing came within {within:.3g} s"]
            for failure in failures:
                log.warning("the credentials for %s stay as they were: %s", label, failure)
        if self.username:
            return Login((self.username, self.password or ""))
        return Login((self.password,) if self.password else ())

    @property
    def origin(self) -> str:
        """Where they come from, as an addition to a message: empty where that is the layout itself, or code."""
        return f" (from {self._names()})" if self._sources else ""

    def read_login(self) -> tuple[str, ...]:
        """Return the present arguments of AUTH, for a client of the library; files are read in this thread."""
        for failure in self._read():
            log.warning("the credentials of a client stay as they were: %s", failure)
        return (self.username, self.password or "") if self.username else (self.password,) if self.password else ()

    async def read_login_in_thread(self) -> tuple[str, ...]:
        """As `read_login`, without blocking the event loop."""
        return await asyncio.to_thread(self.read_login)

    def _names(self) -> str:
        return " and ".join(dict.fromkeys(map(str, self._sources.values())))

    def _read(self) -> list[str]:
        """Read everything again, in a thread; return why parts of it could not be used."""
        failures = []
        for name, source in self._sources.items():
            try:
                self._take(name, source.read())
            except Exception as error:  # noqa: BLE001 - a plugin's source may fail in any way
                failures.append(str(error) or type(error).__name__)
        return failures

    def _take(self, name: str, text: str) -> None:
        if name == "url":
            assert self._url is not None
            url = ServerUrl(text)
            if url.server != self._url.server:
                raise ValueError(f"the URL from {self._sources[name]} now differs in more than user and password")
            self.username, self.password = url.login
        elif text:
            setattr(self, name, text)
        else:
            raise ValueError(f"{self._sources[name]} is empty")

    def __repr__(self) -> str:
        return f"<Credentials{self.origin}>"
