"""What ends a session before its lifetime is over, in Starlette and in Litestar: age, revoking, new identifiers."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import TYPE_CHECKING, Any

import litestar
import pytest
from litestar import Litestar, WebSocket
from litestar.middleware.session.client_side import CookieBackendConfig
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.response import Stream
from litestar.security.session_auth import SessionAuth
from litestar.testing import TestClient as LitestarClient
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from storeconf import MemoryStore, StoreError, StoreRegistry
from storeconf.integrations import litestar as on_litestar
from storeconf.integrations import starlette as on_starlette
from storeconf.integrations.litestar import SessionConfig, StoreconfPlugin
from storeconf.integrations.starlette import SessionMiddleware, lifespan, revoke_sessions
from storeconf.testing import Clock, memory_registry
from tests.conformance.plain import PlainStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request

TTL: dict[str, Any] = {"ttl": {"default": 1000}}


class Site:
    """One application on either framework, its store and its clock; each browser has its own cookies."""

    def __init__(self, framework: str, middleware: Any = TTL, store: Any = None, **settings: Any) -> None:
        self.clock = Clock()
        layout = {"stores": {"sessions": {"type": "memory", "middleware": middleware}}}
        self.registry = memory_registry(layout, clock=self.clock)
        if store is not None:
            self.registry = StoreRegistry({"sessions": store})
        make: Callable[..., Any] = self.starlette if framework == "starlette" else self.litestar
        self.app = make(**settings)
        self.client: Any = TestClient if framework == "starlette" else LitestarClient
        self.first = self.browser()

    def browser(self) -> Any:
        return self.client(self.app, base_url="https://testserver.local")

    def __enter__(self) -> Any:
        return self.first.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.first.__exit__(*error)

    def run(self, work: Callable[[Any], Any]) -> Any:
        async def main() -> Any:
            return await work(self.registry["sessions"])

        if isinstance(self.first, LitestarClient):
            with self.first.portal() as portal:
                return portal.call(main)
        assert self.first.portal is not None
        return self.first.portal.call(main)

    def starlette(self, **settings: Any) -> Any:
        async def put(request: Request) -> Response:
            request.session.update(request.query_params)
            return PlainTextResponse("put")

        async def me(request: Request) -> Response:
            return PlainTextResponse(json.dumps(dict(request.session)))

        async def rotate(request: Request) -> Response:
            on_starlette.rotate_session(request)
            return PlainTextResponse("rotated")

        async def password(request: Request) -> Response:
            await revoke_sessions(self.registry["sessions"], request.session["user"])
            on_starlette.rotate_session(request)
            return PlainTextResponse("changed")

        async def late(request: Request) -> Response:
            on_starlette.rotate_session(request)
            await revoke_sessions(self.registry["sessions"], request.session["user"])
            return PlainTextResponse("ended")

        return Starlette(
            routes=[Route(f"/{view.__name__}", view) for view in (put, me, rotate, password, late)],
            middleware=[Middleware(SessionMiddleware, **settings)],
            lifespan=lifespan(self.registry),
        )

    def litestar(self, **settings: Any) -> Any:
        @litestar.get("/put")
        async def put(request: litestar.Request[Any, Any, Any]) -> str:
            request.session.update(request.query_params)
            return "put"

        @litestar.get("/me")
        async def me(request: litestar.Request[Any, Any, Any]) -> str:
            return json.dumps(request.session)

        @litestar.get("/rotate")
        async def rotate(request: litestar.Request[Any, Any, Any]) -> str:
            on_litestar.rotate_session(request)
            return "rotated"

        @litestar.get("/password")
        async def password(request: litestar.Request[Any, Any, Any]) -> str:
            await on_litestar.revoke_sessions(self.registry["sessions"], request.session["user"])
            on_litestar.rotate_session(request)
            return "changed"

        @litestar.get("/late")
        async def late(request: litestar.Request[Any, Any, Any]) -> str:
            on_litestar.rotate_session(request)
            await on_litestar.revoke_sessions(self.registry["sessions"], request.session["user"])
            return "ended"

        return Litestar(
            [put, me, rotate, password, late],
            plugins=[StoreconfPlugin(self.registry)],
            middleware=[SessionConfig(**settings).middleware],
        )


@pytest.fixture(params=["starlette", "litestar"])
def framework(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_session_ends_at_its_absolute_age_however_much_it_is_used(framework: str) -> None:
    site = Site(framework, absolute_max_age=2500)
    with site as browser:
        browser.get("/put?a=1")
        before = browser.cookies["session"]
        for _ in range(3):  # renewed, changed and renewed within its lifetime
            site.clock.advance(800)
            assert browser.get("/me").json() == {"a": "1"}
            browser.get("/rotate")  # a new identifier does not begin a new session
        assert browser.cookies["session"] != before
        old = browser.cookies["session"]
        assert site.run(lambda store: store.expires_in(old)) == 100
        assert b"user" not in site.run(lambda store: store.get(old))
        site.clock.advance(101)
        assert browser.get("/me").json() == {}
        browser.get("/put?b=2")
        assert browser.cookies["session"] != old
        assert site.run(lambda store: store.expires_in(browser.cookies["session"])) == 1000


def test_the_cookie_lives_no_longer_than_the_absolute_age(framework: str) -> None:
    site = Site(framework, absolute_max_age=300)
    with site as browser:
        assert "Max-Age=300" in browser.get("/put?a=1").headers["set-cookie"]
        site.clock.advance(200)
        assert "Max-Age=100" in browser.get("/put?a=2").headers["set-cookie"]
        site.clock.advance(101)
        assert browser.get("/me").json() == {}


def test_a_session_that_is_not_renewed_ends_after_its_lifetime(framework: str) -> None:
    site = Site(framework, absolute_max_age=5000)
    with site as browser:
        browser.get("/put?a=1")
        site.clock.advance(1001)
        assert browser.get("/me").json() == {}


def test_a_login_begins_a_session(framework: str) -> None:
    site = Site(framework, absolute_max_age=1500, user_key="user")
    with site as browser:
        browser.get("/put?cart=1")
        site.clock.advance(900)
        browser.get("/put?user=Ada")
        site.clock.advance(900)
        assert browser.get("/me").json() == {"cart": "1", "user": "Ada"}
        site.clock.advance(601)
        assert browser.get("/me").json() == {}


def test_an_age_that_is_set_later_holds_from_the_next_request_on(framework: str) -> None:
    site = Site(framework)
    with site as browser:
        browser.get("/put?a=1")
        cookies = dict(browser.cookies)
    bounded = Site(framework, store=MemoryStore(), absolute_max_age=100)
    bounded.registry.register("sessions", site.registry["sessions"], allow_override=True)
    with bounded as browser:
        browser.cookies.update(cookies)
        assert browser.get("/me").json() == {"a": "1"}
        assert bounded.run(lambda store: store.expires_in(cookies["session"])) == 100


def test_revoking_ends_all_sessions_of_one_user_and_no_others(framework: str) -> None:
    site = Site(framework, user_key="user")
    with site as first:
        second, third = site.browser(), site.browser()
        for browser, user in ((first, "Ada"), (second, "Ada"), (third, "Bob")):
            browser.get(f"/put?user={user}")
        planted = second.cookies["session"]
        site.run(lambda store: revoke_sessions(store, "Ada"))
        assert first.get("/me").json() == second.get("/me").json() == {}
        assert third.get("/me").json() == {"user": "Bob"}
        assert site.run(lambda store: store.get(planted)) is None
        second.get("/put?user=Ada")
        assert second.cookies["session"] != planted
        assert second.get("/me").json() == {"user": "Ada"}
        site.run(lambda store: revoke_sessions(store, "Ada"))
        site.run(lambda store: revoke_sessions(store, "Ada"))
        assert second.get("/me").json() == {}


def test_who_changes_the_password_stays_logged_in_and_all_others_do_not(framework: str) -> None:
    site = Site(framework, user_key="user")
    with site as own:
        other = site.browser()
        for browser in (own, other):
            browser.get("/put?user=Ada")
        own.get("/password")
        assert own.get("/me").json() == {"user": "Ada"}
        assert other.get("/me").json() == {}


def test_a_new_identifier_that_was_asked_for_before_revoking_does_not_save_the_session(framework: str) -> None:
    site = Site(framework, user_key="user")
    with site as browser:
        browser.get("/put?user=Ada")
        browser.get("/late")
        assert browser.get("/me").json() == {}


def test_a_session_from_before_the_user_key_was_set_is_revoked_too(framework: str) -> None:
    site = Site(framework)
    with site as browser:
        browser.get("/put?user=Ada")
        cookies = dict(browser.cookies)
    keyed = Site(framework, store=MemoryStore(), user_key="user")
    keyed.registry.register("sessions", site.registry["sessions"], allow_override=True)
    with keyed as browser:
        browser.cookies.update(cookies)
        assert browser.get("/me").json() == {"user": "Ada"}
        keyed.run(lambda store: revoke_sessions(store, "Ada"))
        assert browser.get("/me").json() == {}


@pytest.mark.parametrize("middleware", [{"ttl": {"max": 60}}, {"ttl": {"default": 60, "jitter": 0.5}, "read_only": {}}])
def test_what_revokes_outlives_all_sessions_whatever_the_layout_limits(middleware: Any) -> None:
    clock = Clock()
    layout = {"stores": {"sessions": {"type": "memory", "middleware": middleware}}}

    async def main() -> None:
        async with memory_registry(layout, clock=clock) as registry:
            await revoke_sessions(registry["sessions"], 7)
            clock.advance(10_000)
            assert await registry["sessions"].exists("revoked:7")

    asyncio.run(main())


class Refusing(MemoryStore):
    """Takes no compare-and-set."""

    async def do_compare_and_set(self, *arguments: Any) -> bool:
        return False


def test_revoking_fails_on_a_store_that_refuses_every_change() -> None:
    with pytest.raises(StoreError, match="refuses every change: sessions were not revoked"):
        asyncio.run(revoke_sessions(Refusing(), "Ada"))


def test_how_users_are_identified() -> None:
    async def main() -> None:
        for store in (MemoryStore(), PlainStore()):
            async with store:
                user = uuid.uuid4()
                for each in ("Ada", 7, user):
                    await revoke_sessions(store, each)
                before = await store.get("revoked:7")
                await revoke_sessions(store, "7")
                after = await store.get("revoked:7")
                assert before is not None
                assert after is not None
                assert float(after) > float(before)
                assert await store.exists(f"revoked:{user}")
                for wrong in (None, True, {"id": 1}):
                    with pytest.raises(TypeError, match="a user is identified by"):
                        await revoke_sessions(store, wrong)  # type: ignore[arg-type]

    asyncio.run(main())


def test_settings_that_are_refused() -> None:
    for make in (lambda **settings: SessionMiddleware(None, **settings), SessionConfig):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="absolute_max_age must be above zero"):
            make(absolute_max_age=0)


# ---------------------------------------------------------------------- new identifiers in Litestar

PLANTED = "0" * 64


def litestar_site(config: Any, *, stores: Any = None, plugin: bool = True, auth: bool = False) -> Litestar:
    @litestar.post("/login")
    async def login(request: litestar.Request[Any, Any, Any]) -> str:
        on_litestar.rotate_session(request)
        request.set_session({"user": "Ada"})
        return "welcome"

    @litestar.post("/fail")
    async def fail(request: litestar.Request[Any, Any, Any]) -> str:
        on_litestar.rotate_session(request)
        raise litestar.exceptions.ClientException("no")

    @litestar.post("/leave")
    async def leave(request: litestar.Request[Any, Any, Any]) -> str:
        on_litestar.rotate_session(request)
        request.clear_session()
        return "bye"

    @litestar.get("/stream")
    async def stream(request: litestar.Request[Any, Any, Any]) -> Stream:
        async def body() -> AsyncIterator[str]:
            yield "a"
            on_litestar.rotate_session(request)
            yield "b"

        return Stream(body())

    @litestar.get("/me")
    async def me(request: litestar.Request[Any, Any, Any]) -> str:
        return str(request.session.get("user", "nobody"))

    @litestar.websocket("/socket")
    async def socket(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        with pytest.raises(RuntimeError, match="WebSocket"):
            on_litestar.rotate_session(socket)
        await socket.close()

    async def retrieve(session: dict[str, Any], connection: Any) -> Any:
        return session.get("user", "nobody")

    return Litestar(
        debug=True,
        route_handlers=[login, fail, leave, stream, me, socket],
        plugins=[StoreconfPlugin(StoreRegistry({"sessions": MemoryStore()}))] if plugin else [],
        stores=stores,
        on_app_init=[
            SessionAuth(session_backend_config=config, retrieve_user_handler=retrieve, exclude="/login").on_app_init
        ]
        if auth
        else [],
        middleware=[] if auth else [config.middleware],
    )


@pytest.mark.parametrize("auth", [False, True], ids=["middleware", "auth"])
@pytest.mark.parametrize("config", [ServerSideSessionConfig, SessionConfig])
def test_a_login_in_litestar_makes_a_planted_identifier_useless(config: Any, auth: bool) -> None:
    app = litestar_site(config(), auth=auth)
    with LitestarClient(app) as browser:
        planted = {"Cookie": f"session={PLANTED}"}
        browser.get("/me", headers=planted)
        answer = browser.post("/login", headers=planted)
        assert PLANTED not in answer.headers["set-cookie"]
        assert asyncio.run(app.stores.get("sessions").get(PLANTED)) is None
        assert browser.get("/me").text == "Ada"


def test_a_registry_without_the_plugin_will_do() -> None:
    registry = StoreRegistry({"sessions": MemoryStore()})
    app = litestar_site(ServerSideSessionConfig(), stores=registry.to_litestar(), plugin=False)
    with LitestarClient(app) as browser:
        browser.get("/me")
        before = browser.cookies["session"]
        browser.post("/login")
        assert browser.cookies["session"] != before
        assert browser.get("/me").text == "Ada"


def test_a_response_that_failed_or_ended_the_session() -> None:
    app = litestar_site(ServerSideSessionConfig())
    with LitestarClient(app) as browser:
        browser.post("/login")
        before = browser.cookies["session"]
        assert browser.post("/fail").status_code == 400
        assert browser.get("/me").text == "Ada"
        browser.post("/leave")
        assert browser.get("/me").text == "nobody"
        for identifier in (before, browser.cookies["session"]):
            assert LitestarClient(app, cookies={"session": identifier}).get("/me").text == "nobody"


def why(answer: Any) -> str:
    assert answer.status_code == 500
    return str(answer.text)


def test_where_a_session_of_litestar_can_not_get_a_new_identifier() -> None:
    with LitestarClient(litestar_site(ServerSideSessionConfig()), raise_server_exceptions=True) as browser:
        browser.get("/me")
        with browser.websocket_connect("/socket"):
            pass
        with pytest.raises(Exception, match="after response started"):
            browser.get("/stream")
    elsewhere = litestar_site(ServerSideSessionConfig(), stores={"sessions": MemoryStore()}, plugin=False)
    with LitestarClient(elsewhere) as browser:
        browser.get("/me")
        assert "StoreconfPlugin" in why(browser.post("/login"))
    cookies = litestar_site(CookieBackendConfig(secret=b"k" * 32))
    with LitestarClient(cookies) as browser:
        assert "no session that is kept on a store" in why(browser.post("/login"))


def test_a_session_whose_revocation_can_not_be_read_is_back_when_it_can() -> None:
    site = Site("starlette", user_key="user")
    with site as browser:
        site.run(lambda store: revoke_sessions(store, "Ada"))
        browser.get("/put?user=Ada")
        entry = site.run(lambda store: store.pop("revoked:Ada"))
        assert browser.get("/me").json() == {}
        site.run(lambda store: store.set("revoked:Ada", entry))
        assert browser.get("/me").json() == {"user": "Ada"}
