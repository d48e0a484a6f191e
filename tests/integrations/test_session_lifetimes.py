"""How long sessions and their cookies live: as the application says, else as the layout does."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from litestar import Controller, Litestar
from litestar import Request as LitestarRequest
from litestar import get as litestar_get
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.security.session_auth import SessionAuth
from litestar.testing import TestClient as LitestarClient
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from storeconf import ExpiryRules, MemoryStore, Store, StoreRegistry, load
from storeconf.integrations.litestar import SessionConfig, StoreconfPlugin
from storeconf.integrations.starlette import SessionMiddleware, lifespan
from storeconf.testing import Clock, memory_registry

if TYPE_CHECKING:
    from starlette.requests import Request

FORTNIGHT = 14 * 24 * 60 * 60


def layout(ttl: Any, **more: Any) -> dict[str, Any]:
    middleware = {} if ttl is None else {"ttl": ttl}
    return {"stores": {"main": {"type": "memory"}, "sessions": {"parent": "main", "middleware": middleware}}, **more}


async def login(request: Request) -> Response:
    request.session["user"] = "Ada"
    return PlainTextResponse("welcome")


async def me(request: Request) -> Response:
    return PlainTextResponse(request.session.get("user", "nobody"))


class Site:
    """An application on a layout, with its clock and one browser."""

    def __init__(self, ttl: Any, **settings: Any) -> None:
        self.clock = Clock()
        self.registry = memory_registry(layout(ttl), clock=self.clock)
        app = Starlette(
            routes=[Route("/login", login), Route("/me", me)],
            middleware=[Middleware(SessionMiddleware, **settings)],
            lifespan=lifespan(self.registry),
        )
        self.browser = TestClient(app, base_url="https://testserver")

    def __enter__(self) -> Site:
        self.browser.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.browser.__exit__(*error)

    def visit(self, path: str = "/me") -> tuple[str, str | None]:
        """What the page shows, and the Max-Age of a cookie that it sets."""
        answer = self.browser.get(path)
        cookie = answer.headers.get("set-cookie")
        return answer.text, None if cookie is None else cookie.rpartition("Max-Age=")[2]

    def left(self) -> float | None:
        """The seconds that the one stored session has left."""

        async def look() -> Any:
            store = self.registry["sessions"]
            (left,) = [await store.expires_in(key) async for key in store.keys()]
            return left

        assert self.browser.portal is not None
        return self.browser.portal.call(look)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("ttl", "settings", "lives"),
    [
        (None, {}, FORTNIGHT),
        ("1h", {}, 3600),
        ({"default": "1h", "jitter": 0.5}, {}, 3600),
        ({"max": "2h"}, {}, 7200),
        ({"default": "3h", "max": "2h"}, {}, 7200),
        ({"renew_on_get": "30m"}, {}, FORTNIGHT),
        ("1h", {"max_age": 600}, 600),
        ({"default": "1h", "max": "2h"}, {"max_age": 7200}, 7200),
        ({"max": "2h"}, {"max_age": 7201}, 7200),
        ("1500ms", {}, 2),  # a cookie has whole seconds, and is not to end before the session
    ],
)
def test_a_session_and_its_cookie_live_as_long_as_the_application_or_else_the_layout_says(
    ttl: Any, settings: dict[str, Any], lives: int
) -> None:
    with Site(ttl, **settings) as site:
        assert site.visit("/login") == ("welcome", str(lives))
        assert site.left() == lives


@pytest.mark.parametrize("ttl", ["1h", {"max": "1h"}, {"default": "1h", "renew_on_get": True}])
def test_a_session_in_use_is_renewed_when_a_tenth_of_its_life_is_over_and_not_before(ttl: Any) -> None:
    with Site(ttl) as site:
        site.visit("/login")
        written = []
        for _ in range(20):
            site.clock.advance(60)
            user, cookie = site.visit()
            assert user == "Ada"
            written.append(cookie)
        assert [each for each in written if each is not None] == ["3600"] * 2
        site.clock.advance(3601)
        assert site.visit() == ("nobody", None)


def test_reading_gives_a_session_the_expiry_of_renew_on_get() -> None:
    with Site({"default": "1h", "renew_on_get": "10m"}) as site:
        assert site.visit("/login") == ("welcome", "3600")
        assert site.visit() == ("Ada", "600")
        assert site.left() == 600
        site.clock.advance(30)
        assert site.visit() == ("Ada", None)
        site.clock.advance(60)
        assert site.visit() == ("Ada", "600")


def test_an_explicit_max_age_goes_before_renew_on_get() -> None:
    with Site({"default": "1h", "renew_on_get": "10m"}, max_age=7200) as site:
        site.visit("/login")
        site.clock.advance(3600)
        assert site.visit() == ("Ada", "7200")


def test_a_max_age_above_that_of_the_layout_is_warned_about_once_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "storeconf"), Site({"max": "1h"}, max_age=7200) as site:
        assert caplog.messages == [
            "the max_age of SessionMiddleware, 7200 s, is above the ttl.max of store 'sessions', 3600 s; sessions live "
            "3600 s"
        ]
        site.visit("/login")
        site.visit()
        assert len(caplog.messages) == 1


def test_a_store_tells_its_default_expiry_through_any_chain_and_in_its_namespaces() -> None:
    chain = {"limit": {"key_size": 99}, "ttl": {"default": "1h", "max": "2h", "renew_on_get": "3h"}, "retry": 2}
    stores = {
        "a": {"type": "memory", "namespace": "shop", "middleware": chain},
        "b": {"parent": "a"},
        "c": {"type": "memory", "middleware": {"ttl": {"max": "2h"}}},
        "d": {"parent": "a", "middleware": {"ttl": False}},
    }
    registry = load({"stores": stores}, environ={})
    assert [registry[name].default_expiry for name in "abcd"] == [3600, 3600, 7200, None]
    assert registry["b"].with_namespace("deeper").expiry_rules == ExpiryRules(default=3600, max=7200, renewal=7200)
    assert MemoryStore().expiry_rules == ExpiryRules()
    assert [registry["b"].namespace, registry["c"].namespace, MemoryStore().namespace] == ["shop:b", None, None]


# ---------------------------------------------------------------------------------------------------------- Litestar


@litestar_get("/")
async def count(request: LitestarRequest[Any, Any, Any]) -> int:
    request.session["n"] = request.session.get("n", 0) + 1
    return int(request.session["n"])


def litestar_warnings(caplog: pytest.LogCaptureFixture, source: Any, **settings: Any) -> list[str]:
    """What an application logs as it starts."""
    app = Litestar(plugins=[StoreconfPlugin(source)], logging_config=None, **settings)
    with caplog.at_level(logging.WARNING, "storeconf"), LitestarClient(app):
        return caplog.messages


def test_litestars_own_configuration_is_warned_about_where_the_layout_differs(caplog: pytest.LogCaptureFixture) -> None:
    (message,) = litestar_warnings(
        caplog, layout("1h"), route_handlers=[count], middleware=[ServerSideSessionConfig().middleware]
    )
    assert "max_age=1209600" in message
    assert "ttl.default of store 'sessions', 3600 s" in message
    assert "SessionConfig" in message


@pytest.mark.parametrize(
    ("ttl", "max_age", "differs"),
    [
        (None, 600, False),
        ("1h", 3600, False),
        ("1h", 600, True),
        ({"max": "1h"}, 600, False),
        ({"max": "1h"}, 3601, True),
        ({"default": "1h", "max": "2h"}, 7200, True),
        ({"renew_on_get": "10m"}, 600, False),
    ],
)
def test_litestars_max_age_is_compared_with_the_default_and_the_longest_expiry(
    ttl: Any, max_age: int, differs: bool, caplog: pytest.LogCaptureFixture
) -> None:
    config = ServerSideSessionConfig(max_age=max_age)
    found = litestar_warnings(caplog, layout(ttl), route_handlers=[count], middleware=[config.middleware])
    assert bool(found) is differs


def test_litestars_configuration_is_found_on_every_layer_and_in_session_auth(caplog: pytest.LogCaptureFixture) -> None:
    class Page(Controller):
        path = "/page"
        middleware = (ServerSideSessionConfig(store="pages", max_age=1).middleware,)

        @litestar_get("/")
        async def index(self) -> None: ...

        @litestar_get("/deep", middleware=[ServerSideSessionConfig(store="made", max_age=2).middleware])
        async def deep(self) -> None: ...

    async def user(session: dict[str, Any], connection: Any) -> None: ...

    auth = SessionAuth[Any, Any](
        retrieve_user_handler=user, session_backend_config=ServerSideSessionConfig(store="auth", max_age=3)
    )
    source = layout("1h", default_factory={"type": "memory", "middleware": {"ttl": "1m"}})
    found = litestar_warnings(caplog, source, route_handlers=[Page], on_app_init=[auth.on_app_init])
    told = sorted((each.partition("max_age=")[2].partition(",")[0], each.partition("store ")[2][:7]) for each in found)
    assert told == [("1", "'pages'"), ("2", "'made',"), ("3", "'auth',")]


def test_a_registry_that_is_given_as_stores_warns_too(caplog: pytest.LogCaptureFixture) -> None:
    app = Litestar(
        [count],
        stores=load(layout("1h"), environ={}).to_litestar(),
        middleware=[ServerSideSessionConfig().middleware],
        logging_config=None,
    )
    with caplog.at_level(logging.WARNING, "storeconf"), LitestarClient(app):
        assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("ttl", "lives"), [("1h", 3600), ({"max": "2h"}, 7200), ({"default": "1h", "jitter": 0.5}, 3600), (None, FORTNIGHT)]
)
@pytest.mark.parametrize("renew", [False, True])
def test_the_configuration_of_storeconf_takes_the_lifetime_from_the_layout(
    ttl: Any, lives: int, renew: bool, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    registry = memory_registry(layout(ttl), clock=clock)

    async def left() -> list[int | None]:
        store = registry["sessions"]
        return [await store.expires_in(key) async for key in store.keys()]

    app = Litestar(
        [count],
        plugins=[StoreconfPlugin(registry)],
        middleware=[SessionConfig(key="visit", renew_on_access=renew).middleware],
        logging_config=None,
    )
    with (
        caplog.at_level(logging.WARNING, "storeconf"),
        LitestarClient(app) as client,
        client.portal() as portal,
    ):
        for number in (1, 2):
            answer = client.get("/")
            assert answer.json() == number
            assert f"Max-Age={lives}" in answer.headers["set-cookie"]
            assert portal.call(left) == [lives]
            clock.advance(60)
    assert caplog.messages == []


def test_session_auth_takes_the_configuration_of_storeconf() -> None:
    async def user(session: dict[str, Any], connection: Any) -> str | None:
        return session.get("user")

    @litestar_get("/login")
    async def enter(request: LitestarRequest[Any, Any, Any]) -> None:
        request.set_session({"user": "Ada"})

    auth = SessionAuth[Any, Any](retrieve_user_handler=user, session_backend_config=SessionConfig(), exclude=["/login"])
    app = Litestar([enter], plugins=[StoreconfPlugin(layout("1h"))], on_app_init=[auth.on_app_init])
    with LitestarClient(app) as client:
        assert "Max-Age=3600" in client.get("/login").headers["set-cookie"]


def test_a_mounted_applications_sessions_are_as_the_layout_says() -> None:
    inner = Starlette(routes=[Route("/login", login)], middleware=[Middleware(SessionMiddleware)])
    app = Starlette(routes=[Mount("/inner", inner)], lifespan=lifespan(layout("1h")))
    with TestClient(app) as client:
        assert "Max-Age=3600" in client.get("/inner/login").headers["set-cookie"]


def test_a_store_without_middleware_keeps_sessions_for_a_fortnight() -> None:
    app = Starlette(
        routes=[Route("/login", login)],
        middleware=[Middleware(SessionMiddleware)],
        lifespan=lifespan(StoreRegistry({"sessions": MemoryStore()})),
    )
    with TestClient(app) as client:
        assert f"Max-Age={FORTNIGHT}" in client.get("/login").headers["set-cookie"]


def test_the_lifetime_is_that_of_the_store_at_each_request() -> None:
    def store_with(ttl: str) -> Store:
        return load(layout(ttl), environ={})["sessions"]

    registry = StoreRegistry({"sessions": store_with("1h")})
    app = Starlette(
        routes=[Route("/login", login)], middleware=[Middleware(SessionMiddleware)], lifespan=lifespan(registry)
    )
    with TestClient(app) as client:
        assert "Max-Age=3600" in client.get("/login").headers["set-cookie"]
        registry.register("sessions", store_with("2h"), allow_override=True)
        client.cookies.clear()
        assert "Max-Age=7200" in client.get("/login").headers["set-cookie"]
