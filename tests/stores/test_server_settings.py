"""What ops write for redis and valkey: what is accepted, what is refused, and that secrets never show."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any, TypeVar

import pytest
from pydantic import ValidationError

from storeconf.backends.server import RedisBackend, ServerBackend, ValkeyBackend
from storeconf.plugin import BuildContext
from storeconf.stores import RedisStore, ValkeyStore
from storeconf.stores.resp.driver import load_driver
from storeconf.stores.resp.options import ServerUrl
from storeconf.stores.resp.transport import StandaloneTransport

T = TypeVar("T", bound=ServerBackend)


def make(kind: type[T], **settings: Any) -> T:
    """Validate as a layout's text is validated."""
    return kind.model_validate(settings)


def refused(message: str, **settings: Any) -> str:
    settings.setdefault("namespace", "shop")
    with pytest.raises(ValidationError, match=message) as caught:
        make(RedisBackend, **settings)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost", "redis://localhost"),
        ("rediss://app:hunter2@db.example:7000/3", "rediss://app:***@db.example:7000/3"),
        ("valkey://:hunter2@[::1]:7000", "valkey://:***@[::1]:7000"),
        ("valkeys://app@h", "valkeys://***@h"),
        ("unix:///run/valkey.sock?db=2&password=hunter2", "unix:///run/valkey.sock?db=***&password=***"),
        ("REDIS://h/0?client_name=me", "REDIS://h/0?client_name=***"),
        ("redis://app:hunter2%2F%40@h", "redis://app:***@h"),
    ],
)
def test_urls_show_no_secret(url: str, shown: str) -> None:
    for kind in (RedisBackend, ValkeyBackend):
        backend: ServerBackend = make(kind, url=url, namespace="shop")
        assert str(backend.url) == shown
        for text in (repr(backend), str(backend.model_dump()), backend.model_dump_json(), repr(backend.options())):
            assert "hunter2" not in text
        assert backend.options().url == url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://app:hunter2@h", "begins with one of redis://"),
        ("hunter2", "begins with one of redis://"),
        ("redis://", "has no host"),
        ("redis:///0", "has no host"),
        ("redis://app:hunter2@", "has no host"),
        ("redis://app:hun/ter2@h", "can't be read"),
        ("redis://app:hun?ter2@h", "can't be read"),
        ("redis://app:hun#ter2@h", "can't be read"),
        ("redis://app:hun@ter2@h", "can't be read"),
        ("redis://app:hun[ter2@h", "can't be read"),
        ("redis://app:hun ter2@h", "can't be read"),
        ("redis://app:hunter2@h:port", "can't be read"),
        ("redis://app:hunter2@h:99999", "the URL's port"),
        ("redis://h1,h2:6379", "several hosts.*'cluster'.*'sentinel'"),
        ("redis://h1:6379,h2:6379/0", "several hosts"),
        ("rediss://app:hunter2@h1:6379,h2", "several hosts"),
        ("redis://[::1]:6379,[::2]:6379", "several hosts"),
        ("redis://h1;h2:6379/0", "several hosts"),
        ("redis://app:a,hun/ter2@h", "can't be read"),
        ("redis://h/hunter2", "number of a database"),
        ("redis://h/1/2", "number of a database"),
        ("redis://h/1?db=2", "names the database twice"),
        ("redis://app:a@h?password=hunter2", "credential twice"),
        ("redis://h?timeout=3", "not understood: 'timeout'"),
        ("redis://h?HUNTER2=3", "not understood: an unknown one"),
        ("redis://h?db=hunter2", "option db has a value"),
        ("redis://h?db=1&db=2", "option db twice"),
        ("redis://h?socket_timeout=hunter2", "option socket_timeout has a value"),
        ("redis://h?socket_timeout=0", "option socket_timeout has a value"),
        ("redis://h?max_connections=0", "option max_connections has a value"),
        ("redis://h?ssl_cert_reqs=none", "needs a scheme with TLS"),
        ("unix://run/valkey.sock", "three slashes"),
        ("unix://", "needs the path"),
    ],
)
def test_urls_that_are_refused(url: str, message: str) -> None:
    refused(message, url=url)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "set one of url, cluster or sentinel"),
        ({"url": "redis://h", "cluster": ["h:1"]}, "give only one of url, cluster"),
        ({"cluster": ["h:1"], "sentinel": {"nodes": ["h:1"], "service": "s"}}, "only one of cluster, sentinel"),
        ({"url": "redis://:a@h", "password": "hunter2"}, "password: given both"),
        ({"url": "redis://app@h", "password": "hunter2"}, "credentials: given both"),
        ({"url": "redis://h/1", "db": 1}, "db: given both"),
        ({"url": "redis://h?client_name=a", "client_name": "b"}, "client_name: given both"),
        ({"url": "redis://h?socket_timeout=1", "command_timeout": 1}, "command_timeout: given both"),
        ({"url": "rediss://h", "tls": False}, "forbids"),
        ({"url": "unix:///s", "tls": True}, "none on a unix socket"),
        *(
            ({"url": f"redis://{netloc}"}, "port must be a number from 1 to 65535")
            for netloc in ("h:0", "h:65536", "u:p@h:00", "[::1]:99999/1", ":p@h:123456789012?db=1")
        ),
        ({"url": "rediss://h?ssl_ca_certs=/a", "tls": {"ca_file": "/b"}}, "contradicts"),
        ({"url": "redis://h", "tls": {"key_file": "/k"}}, "key_file needs cert_file"),
        ({"url": "redis://h", "tls": {"verify": "some"}}, "verify"),
        ({"cluster": []}, "at least 1"),
        ({"cluster": ["h"]}, "host:port"),
        ({"cluster": ["h:0"]}, "host:port"),
        ({"cluster": ["redis://h:1"]}, "host:port"),
        ({"cluster": ["h:1"], "db": 1}, "no other databases"),
        ({"sentinel": {"nodes": ["h:1"]}}, "service"),
        ({"sentinel": {"nodes": [], "service": "s"}}, "at least 1"),
        ({"url": "redis://h", "command_timeout": 0}, "more than zero"),
        ({"url": "redis://h", "connect_timeout": "-1s"}, "connect_timeout"),
        ({"url": "redis://h", "retries": -1}, "greater than or equal to 0"),
        ({"url": "redis://h", "max_connections": 0}, "greater than or equal to 1"),
        ({"url": "redis://h", "client_name": "a b"}, "client_name"),
        ({"url": "redis://h", "key_layout": "other"}, "key_layout"),
        ({"url": "redis://h", "pasword": "hunter2"}, "pasword"),
        ({"url": 7}, "must be a string"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    refused(message, **settings)


def test_the_namespace_must_be_said() -> None:
    with pytest.raises(ValidationError, match=r"namespace\n  Field required"):
        make(RedisBackend, url="redis://h")
    assert make(RedisBackend, url="redis://h", namespace="").namespace == ""
    assert make(RedisBackend, url="redis://h", key_layout="litestar").namespace == "LITESTAR"
    assert make(RedisBackend, url="redis://h", key_layout="litestar", namespace="app").namespace == "app"


def place(**settings: Any) -> tuple[str, ...]:
    settings.setdefault("namespace", "shop")
    return make(ValkeyBackend, **settings).location()


def test_where_the_keys_lie() -> None:
    assert place(url="redis://LocalHost") == place(url="valkey://127.0.0.1:6379/0") == place(url="rediss://[::1]", db=0)
    assert place(url="redis://h") == ("h:6379", "0", "shop")
    assert place(url="redis://h", namespace="") == ("h:6379", "0"), "it collides with every root on that database"
    assert place(url="redis://h/1") == place(url="redis://h?db=1") == place(url="redis://h", db=1)
    assert place(url="redis://h/1") != place(url="redis://h")
    assert place(url="unix:///s") == ("unix:/s", "0", "shop")
    assert place(url="unix:///r/../s") == ("unix:/s", "0", "shop")
    assert place(cluster=["b:1", "A:1"]) == place(cluster=["a:1", "b:1"]) == place(url="redis://a:1")
    sentinel = {"nodes": ["b:1", "a:1"], "service": "s"}
    assert make(ValkeyBackend, namespace="shop", sentinel=sentinel).locations() == (
        ("s of a:1", "0", "shop"),
        ("s of b:1", "0", "shop"),
    )


def test_what_deserves_a_warning() -> None:
    def fields(**settings: Any) -> list[str]:
        return [field for field, _ in make(RedisBackend, namespace="shop", **settings).warnings()]

    assert fields(url="rediss://h") == []
    assert fields(url="rediss://h", tls={"verify": "none"}) == ["tls.verify"]
    assert fields(url="rediss://h", tls={"verify": "chain"}) == []
    assert fields(url="rediss://h?ssl_cert_reqs=none") == ["url"]
    assert fields(sentinel={"nodes": ["h:1"], "service": "s", "tls": {"verify": "none"}}) == ["sentinel.tls.verify"]
    assert fields(url="redis://h", key_layout="litestar") == ["key_layout"]


@pytest.mark.parametrize("kind", [RedisBackend, ValkeyBackend])
def test_what_a_connection_is_told(kind: type[ServerBackend]) -> None:
    driver = load_driver(kind.model_fields["type"].default)

    def told(**settings: Any) -> Any:
        return driver.template(make(kind, namespace="shop", **settings).options())

    def login(endpoint: Any) -> tuple[str, ...]:
        given: tuple[str, ...] = asyncio.run(endpoint.credentials.login("main", 1)).words
        return given

    plain = told(url="valkey://h:7/2", username="u", password="p@%")
    assert (plain.host, plain.port, plain.db, login(plain)) == ("h", 7, 2, ("u", "p@%"))
    assert (plain.protocol, plain.tls, plain.client_name) == (2, None, "storeconf")
    inside = told(url="redis://u:p%40%25@h?db=2", client_name="")
    assert (login(inside), inside.db, inside.client_name) == (("u", "p@%"), 2, "")
    secured = told(url="valkeys://h").tls.load()
    assert secured.check_hostname
    assert secured.verify_mode.name == "CERT_REQUIRED"
    for verify, checks, mode in (
        ("full", True, "CERT_REQUIRED"),
        ("chain", False, "CERT_REQUIRED"),
        ("none", False, "CERT_NONE"),
    ):
        for where in ({"url": "redis://h"}, {"cluster": ["h:1"]}, {"sentinel": {"nodes": ["h:1"], "service": "s"}}):
            context = told(**where, tls={"verify": verify}).tls.load()
            assert (context.check_hostname, context.verify_mode.name) == (checks, mode)
    sentinel = {"nodes": ["a:1", "b:2"], "service": "s", "password": "own", "tls": True}
    options = make(kind, namespace="shop", sentinel=sentinel, username="u", password="data").options()
    found = driver.sentinels(options)
    assert [(e.host, e.port, login(e)) for e in found] == [("a", 1, ("own",)), ("b", 2, ("own",))]
    assert all(e.tls is not None for e in found)
    assert driver.template(options).tls is None


def test_options_in_the_url_count() -> None:
    url = "redis://h?socket_timeout=1.5&max_connections=3&client_name=me"
    backend = make(RedisBackend, url=url, namespace="shop")
    built = backend.build(BuildContext("main", None, lambda name: pytest.fail(name)))
    stores = (built, RedisStore.with_client(url), ValkeyStore.with_client(url))  # importing the drivers reads files

    async def work() -> None:
        for store in stores:
            transport = store._transports.here()  # type: ignore[attr-defined]  # a server store's
            assert isinstance(transport, StandaloneTransport)
            assert (transport.timeout, len(transport._connections), transport.endpoint.client_name) == (1.5, 3, "me")

    asyncio.run(work())


def test_urls_in_code_are_checked_as_well() -> None:
    for url in ("redis://app:hun/ter2@h", "redis://app:hunter2@h?pasword=hunter2", "redis://h/hunter2", "h"):
        with pytest.raises(ValueError, match="URL") as caught:
            RedisStore.with_client(url)
        assert "hunter2" not in "".join(traceback.format_exception_only(caught.value))
        assert caught.value.__cause__ is None


def test_urls_compare_and_hash_by_their_text() -> None:
    assert ServerUrl("redis://:a@h") == ServerUrl("redis://:a@h") != ServerUrl("redis://:b@h")
    assert len({ServerUrl("redis://h"), ServerUrl("redis://h")}) == 1
    assert "hunter2" not in repr(ServerUrl("redis://:hunter2@h"))


def test_every_field_is_described_for_the_docs() -> None:
    for kind in (RedisBackend, ValkeyBackend):
        schema = kind.model_json_schema()
        assert schema["required"] == ["namespace"]
        for name, field in kind.model_fields.items():
            assert field.description, name
            assert field.examples, name
