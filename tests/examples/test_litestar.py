"""Each page of examples/litestar does over HTTP what it claims, on every backend."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from litestar.testing import TestClient

from storeconf import read_layout
from tests.examples.pages import ENVIRONMENTS, EXAMPLES, Pages, pages, servers

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["pages", "servers"]

DIRECTORY = "litestar"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_getting_and_setting(pages: Pages) -> None:
    with TestClient(pages("getting_and_setting").app) as client:
        assert client.get("/notes/a").text == "nothing"
        client.put("/notes/a", content=b"milk")
        assert client.get("/notes/a").text == "milk"
        client.put("/notes/a", content=b"bread")
        assert client.get("/notes/a").text == "bread"
    with TestClient(pages("getting_and_setting").app) as client:
        assert client.get("/notes/a").text == ("bread" if pages.persistent else "nothing")


def test_expiry(pages: Pages) -> None:
    with TestClient(pages("expiry").app) as client:
        client.put("/notes/short/40", content=b"milk")
        client.put("/notes/long/60000", content=b"bread")
        assert client.get("/notes/long").json() == {"value": "bread", "expires_in": 60}
        wait_until(lambda: client.get("/notes/short").json() == {"value": None, "expires_in": None})


def test_renewing(pages: Pages) -> None:
    with TestClient(pages("renewing").app) as client:
        for store in ("notes", "visits"):
            client.put(f"/{store}/a", content=b"x")
        assert client.get("/notes/a").json() == 600
        assert client.get("/visits/a").json() == 3600
        assert client.get("/visits/missing").json() is None


def test_deleting_expired(pages: Pages) -> None:
    page = pages("deleting_expired")
    notes = page.plugin.registry["notes"]
    with TestClient(page.app) as client:
        client.put("/notes/a", content=b"x")
        wait_until(lambda: client.get("/notes").json() == [])
        if pages.environment == "file":  # the call after the response has deleted it, not the registry in its time
            assert not Path(notes.raw_key("a")).exists()
        client.put("/notes/b", content=b"x")
        if pages.environment == "file":  # the registry does it as well
            assert Path(notes.raw_key("b")).exists()
            wait_until(lambda: not Path(notes.raw_key("b")).exists())


def test_deleting_expired_on_startup(pages: Pages) -> None:
    if not pages.persistent:
        return  # memory is empty at every start
    page = pages("deleting_expired")
    with TestClient(page.app) as client:
        client.put("/notes/a", content=b"x")
        assert client.get("/notes").json() in (["a"], [])
    time.sleep(0.06)
    with TestClient(page.app) as client:
        if pages.environment == "file":
            assert not Path(page.plugin.registry["notes"].raw_key("a")).exists()
        assert client.get("/notes").json() == []


def test_what_can_be_stored(pages: Pages) -> None:
    with TestClient(pages("what_can_be_stored").app) as client:
        assert client.get("/").json() == {"text": "größe", "bytes": [0, 255], "same object": True}


def test_namespacing(pages: Pages) -> None:
    with TestClient(pages("namespacing").app) as client:

        def there() -> list[bool]:
            return [client.get(f"/{area}/a").json() for area in ("red", "green", "redder")]

        for area in ("red", "green", "redder"):
            client.put(f"/{area}/a")
        client.delete("/red")
        assert there() == [False, True, True]
        client.delete("/")
        assert there() == [False, False, False]


def test_given_stores(pages: Pages) -> None:
    page = pages("given_stores")
    with TestClient(page.app) as client:
        assert client.get("/").json() == {"given": True, "the same every time": True, "kept": True, "open": True}
    assert not page.given.is_open


def test_middleware_store(pages: Pages) -> None:
    with TestClient(pages("middleware_store").app) as client:
        assert client.get("/whoami").text == "nobody"
        client.get("/login")
        assert client.get("/whoami").text == "Ada"
        client.delete("/sessions")
        assert client.get("/whoami").text == "nobody"


def test_integrations(pages: Pages) -> None:
    with TestClient(pages("integrations").app) as client:
        assert [client.get("/visits").json() for _ in range(3)] == [1, 2, 3]
        cookie = client.cookies["session"]
        assert [client.get("/cached").json() for _ in range(5)] == [1] * 5
        assert client.get("/cached").status_code == 429
    with TestClient(pages("integrations").app, cookies={"session": cookie}) as client:
        assert client.get("/visits").json() == (4 if pages.persistent else 1)
        assert client.get("/cached").status_code == (429 if pages.persistent else 200)


def test_by_name(pages: Pages) -> None:
    page = pages("by_name")
    with TestClient(page.app) as client:
        assert [client.get("/").json() for _ in range(3)] == [1, 1, 1]
        assert client.get("/").status_code == 429
        assert client.get("/kept").json() == {"main": 0, "visitors": 1, "web": 2}  # in web a response and a counter
        # No store was made for the names that the integrations would ask for by themselves.
        assert page.app.stores.registry.names() == ["main", "visitors", "web"]


def test_shared_store(pages: Pages) -> None:
    with TestClient(pages("shared_store").app) as client:
        client.get("/login")
        assert client.get("/").json() == client.get("/").json()
        assert client.get("/kept").json() == 2  # a session and a response


def test_default_factory(pages: Pages) -> None:
    with TestClient(pages("default_factory").app) as client:
        client.put("/unheard_of/a", content=b"x")
        assert client.get("/something_else/a").text == "x"


def test_default_factory_with_namespaces(pages: Pages) -> None:
    with TestClient(pages("default_factory_with_namespaces").app) as client:
        client.put("/one/a")
        client.put("/two/b")
        assert client.get("/one/a").json() == 3600
        assert client.get("/one/b").json() is None
        client.delete("/")
        assert client.get("/one/a").json() is None
        assert client.get("/two/b").json() is None


def test_lifetime(pages: Pages) -> None:
    page = pages("lifetime")
    with TestClient(page.app) as client:
        assert client.get("/").json() == {name: str(f"in {name}".encode()) for name in ("notes", "borrowing", "owning")}
        stores = [page.plugin.registry[name] for name in ("notes", "borrowing", "owning")]
        assert [store.is_open for store in stores] == [True, True, True]
    assert [store.is_open for store in stores] == [False, False, False]


PAGES = sorted(path.stem for path in (EXAMPLES / DIRECTORY).glob("*.py"))


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_short_and_tested(page: str) -> None:
    text = (EXAMPLES / DIRECTORY / f"{page}.py").read_text()
    assert len(text.splitlines()) <= 40
    assert ".yaml" in text, "a page without a layout"
    assert f"test_{page}" in globals()


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("layout", sorted(path.name for path in (EXAMPLES / DIRECTORY).glob("*.yaml")))
def test_every_layout_is_valid(layout: str, environment: str) -> None:
    assert read_layout(EXAMPLES / DIRECTORY / layout, environment=environment, environ={}).warnings == ()
