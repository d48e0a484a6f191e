"""The session middleware against honest applications and hostile browsers."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient

from storeconf import MemoryStore, Store, StoreError, StoreRegistry, StoreTimeoutError
from storeconf.integrations.starlette import SessionMiddleware, lifespan, registry_of, rotate_session, store_of
from tests.conformance.plain import PlainStore
from tests.servers import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from starlette.requests import Request
    from starlette.websockets import WebSocket


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def show(request: Request) -> Response:
    return JSONResponse(dict(request.session))


async def put(request: Request) -> Response:
    request.session.update(request.query_params)
    return PlainTextResponse("put")


async def push(request: Request) -> Response:
    request.session.setdefault("list", []).append(1)
    return PlainTextResponse("pushed")


async def clear(request: Request) -> Response:
    request.session.clear()
    return PlainTextResponse("cleared")


async def login(request: Request) -> Response:
    rotate_session(request)
    request.session["user"] = "Ada"
    return PlainTextResponse("welcome")


async def plain(request: Request) -> Response:
    return PlainTextResponse("plain")


async def fail(request: Request) -> Response:
    request.session["seen"] = True
    raise LookupError("broken")


async def unfit(request: Request) -> Response:
    request.session["fine"] = 1
    request.session["when"] = object()
    return PlainTextResponse("never")


async def number(request: Request) -> Response:
    request.session[1] = "one"  # type: ignore[index]
    return PlainTextResponse("never")


async def stream(request: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        yield b"a"
        request.session["streamed"] = True
        yield b"b"

    return StreamingResponse(body())


async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        websocket.session["said"] = text
        await websocket.send_json(dict(websocket.session))


PATHS = (show, put, push, clear, login, plain, fail, unfit, number, stream)


class Site:
    """An application with sessions in memory, its store and its clock."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.store = MemoryStore(clock=self.clock)
        self.registry = StoreRegistry({"sessions": self.store})
        self.routes = [Route(f"/{view.__name__}", view) for view in PATHS]
        self.app = Starlette(
            routes=[*self.routes, WebSocketRoute("/socket", socket), Mount("/inner", Starlette(routes=self.routes))],
            middleware=[Middleware(SessionMiddleware, **settings)],
            lifespan=lifespan(self.registry),
        )

    def browser(self, **options: Any) -> TestClient:
        return TestClient(self.app, base_url="https://testserver", **options)

    def identifiers(self) -> list[str]:
        async def keys() -> list[str]:
            return [key async for key in self.store.keys()]

        async def main() -> list[str]:
            async with self.store:
                return await keys()

        return asyncio.run(main())


def test_a_session_lives_on_from_request_to_request_and_is_one_random_cookie() -> None:
    site = Site()
    with site.browser() as browser:
        cookie = browser.get("/put?a=1").headers["set-cookie"]
        assert browser.get("/show").json() == {"a": "1"}
        browser.get("/put?b=2")
        assert browser.get("/show").json() == {"a": "1", "b": "2"}
        assert len(browser.cookies["session"]) == 43
    assert cookie == (
        f"session={browser.cookies['session']}; Path=/; HttpOnly; SameSite=lax; Max-Age={14 * 24 * 60 * 60}"
    )
    assert site.identifiers() == [browser.cookies["session"]]


def test_a_change_inside_a_value_is_kept() -> None:
    with Site().browser() as browser:
        for _ in range(3):
            browser.get("/push")
        assert browser.get("/show").json() == {"list": [1, 1, 1]}


def test_no_cookie_is_set_without_need() -> None:
    site = Site()
    with site.browser() as browser:
        assert "set-cookie" not in browser.get("/show").headers
        assert "set-cookie" not in browser.get("/plain").headers
        assert "vary" not in browser.get("/plain").headers
        assert browser.get("/show").headers["vary"] == "Cookie"
        assert "set-cookie" in browser.get("/put?a=1").headers
        assert "set-cookie" not in browser.get("/show").headers
    assert len(site.identifiers()) == 1


def test_a_session_that_is_used_lives_on_and_one_that_is_not_ends() -> None:
    site = Site(max_age=1000)
    with site.browser() as browser:
        browser.get("/put?a=1")
        for _ in range(5):
            site.clock.now += 899
            assert "Max-Age=1000" in browser.get("/plain").headers["set-cookie"]
        site.clock.now += 1001
        assert browser.get("/show").json() == {}


def test_an_emptied_session_is_deleted_with_its_cookie() -> None:
    site = Site()
    with site.browser() as browser:
        browser.get("/put?a=1")
        assert "Max-Age=0" in browser.get("/clear").headers["set-cookie"]
        assert "session" not in browser.cookies
        assert "set-cookie" not in browser.get("/clear").headers
    assert site.identifiers() == []


PLANTED = "A" * 43


@pytest.mark.parametrize(
    "value", [PLANTED, "x", "", "../../etc/passwd", "A" * 44, f"{PLANTED[:-1]}.", '"' + PLANTED + '"', "é" * 43]
)
def test_an_identifier_that_was_not_given_out_is_never_taken_over(value: str) -> None:
    site = Site()
    with site.browser() as browser:
        headers = {b"Cookie": b"session=" + value.encode()}
        assert browser.get("/show", headers=headers).json() == {}
        browser.get("/put?a=1", headers=headers)
    (identifier,) = site.identifiers()
    assert identifier != value


def test_a_stored_entry_under_a_key_that_is_no_identifier_is_out_of_reach() -> None:
    site = Site()
    asyncio.run(site.store.set("secret", b'{"user": "root"}'))
    with site.browser(headers={"Cookie": "session=secret"}) as browser:
        assert browser.get("/show").json() == {}


def test_a_rotated_identifier_is_worth_nothing_any_more() -> None:
    site = Site()
    with site.browser() as browser, site.browser() as thief:
        browser.get("/put?cart=lamp")
        thief.cookies.set("session", browser.cookies["session"])
        browser.get("/login")
        assert browser.get("/show").json() == {"cart": "lamp", "user": "Ada"}
        assert thief.get("/show").json() == {}
    assert site.identifiers() == [browser.cookies["session"]]


def test_rotating_is_right_where_the_session_only_begins_and_where_it_is_empty() -> None:
    async def rotate(request: Request) -> Response:
        rotate_session(request)
        return PlainTextResponse("rotated")

    site = Site()
    site.app.router.routes.append(Route("/rotate", rotate))
    with site.browser() as browser:
        assert "set-cookie" not in browser.get("/rotate").headers
        browser.get("/login")
        assert browser.get("/show").json() == {"user": "Ada"}
        before = browser.cookies["session"]
        browser.get("/rotate")
        assert browser.cookies["session"] != before
        assert browser.get("/show").json() == {"user": "Ada"}


def test_the_right_one_of_several_cookies_is_found_among_strange_ones() -> None:
    site = Site()
    with site.browser() as browser:
        browser.get("/put?a=1")
        own = browser.cookies["session"]
    for line in (
        f"session={PLANTED}; session={own}",
        f"session={own}; session={PLANTED}",
        f"odd[name]=(1); =; ;; {{}}=1; session={own};x",
        f'quoted="a; b"; session={own}',
        f"xsession={PLANTED}; session={own}; sessionx={PLANTED}",
        "; ".join([f"c{number}=v" for number in range(5000)]) + f"; session={own}",
    ):
        with site.browser(headers={"Cookie": line}) as browser:
            assert browser.get("/show").json() == {"a": "1"}, line[:80]


def test_a_flood_of_identifiers_is_not_looked_up() -> None:
    site = Site()
    asked = []

    class Counting(MemoryStore):
        async def do_get_with_expiry(self, path: tuple[str, ...], key: str) -> tuple[bytes, int | None] | None:
            asked.append(key)
            return await super().do_get_with_expiry(path, key)

    site.registry.register("sessions", Counting(), allow_override=True)
    line = "; ".join(f"session={number:043}" for number in range(1000))
    with site.browser(headers={"Cookie": line}) as browser:
        assert browser.get("/show").json() == {}
    assert len(asked) == 4


def test_what_an_application_did_before_it_failed_is_not_kept() -> None:
    site = Site()
    with site.browser(raise_server_exceptions=False) as browser:
        assert browser.get("/fail").status_code == 500
        browser.get("/put?a=1")
        assert browser.get("/fail").status_code == 500
        assert browser.get("/show").json() == {"a": "1"}


def test_what_json_cannot_hold_is_an_error_that_names_the_key_and_stores_nothing() -> None:
    site = Site()
    with site.browser() as browser:
        with pytest.raises(TypeError, match=r"session\['when'\] can't be stored as JSON: Object of type object"):
            browser.get("/unfit")
        with pytest.raises(TypeError, match="the keys of a session must be str, not 1"):
            browser.get("/number")
    assert site.identifiers() == []


@pytest.mark.parametrize("stored", [b"\xff", b"[1]", b"{"])
def test_what_is_no_session_is_taken_for_none(stored: bytes, caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    with site.browser() as browser, caplog.at_level(logging.WARNING, "storeconf"):
        browser.get("/put?a=1")
        asyncio.run(site.store.set(browser.cookies["session"], stored))
        assert browser.get("/show").json() == {}
        browser.get("/put?b=2")
        assert browser.get("/show").json() == {"b": "2"}
    assert "contains a value that is not a session" in caplog.text


def test_a_body_that_is_streamed_may_still_change_a_session_that_is_there() -> None:
    with Site().browser() as browser:
        browser.get("/put?a=1")
        assert browser.get("/stream").text == "ab"
        assert browser.get("/show").json() == {"a": "1", "streamed": True}


def test_a_session_that_begins_too_late_for_its_cookie_is_an_error() -> None:
    site = Site()
    with site.browser() as browser, pytest.raises(RuntimeError, match="too late for a cookie"):
        browser.get("/stream")
    assert site.identifiers() == []


def test_a_websocket_reads_and_changes_the_session() -> None:
    with Site().browser() as browser:
        browser.get("/put?a=1")
        with browser.websocket_connect("/socket") as websocket:
            websocket.send_text("hello")
            assert websocket.receive_json() == {"a": "1", "said": "hello"}
        assert browser.get("/show").json() == {"a": "1", "said": "hello"}


def test_mounted_applications_share_session_and_registry() -> None:
    with Site().browser() as browser:
        browser.get("/inner/put?a=1")
        assert browser.get("/show").json() == {"a": "1"}


def test_a_mounted_application_may_be_the_one_that_has_sessions() -> None:
    async def names(request: Request) -> Response:
        assert store_of(request, "sessions") is registry_of(request)["sessions"]
        return JSONResponse(registry_of(request).names())

    routes = [Route("/put", put), Route("/show", show), Route("/names", names)]
    inner = Starlette(routes=routes, middleware=[Middleware(SessionMiddleware, path="/inner")])
    registry = StoreRegistry({"sessions": MemoryStore()})
    app = Starlette(routes=[Mount("/inner", inner)], lifespan=lifespan(registry))
    with TestClient(app) as browser:
        browser.get("/inner/put?a=1")
        assert browser.get("/inner/show").json() == {"a": "1"}
        assert browser.get("/inner/names").json() == ["sessions"]


def test_middleware_around_the_application_works_as_well() -> None:
    app = Starlette(
        routes=[Route("/put", put), Route("/show", show)],
        lifespan=lifespan(StoreRegistry({"sessions": MemoryStore()})),
    )
    with TestClient(SessionMiddleware(app)) as browser:
        browser.get("/put?a=1")
        assert browser.get("/show").json() == {"a": "1"}


def test_without_a_registry_the_error_says_what_to_do() -> None:
    app = Starlette(routes=[Route("/show", show)], middleware=[Middleware(SessionMiddleware)])
    with pytest.raises(RuntimeError, match="give it lifespan="):
        TestClient(app).get("/show")


def test_rotating_needs_a_session_of_ours() -> None:
    app = Starlette(routes=[Route("/login", login)], lifespan=lifespan(StoreRegistry()))
    with TestClient(app) as browser, pytest.raises(RuntimeError, match="no session of storeconf's"):
        browser.get("/login")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cookie": "a b"}, "is not a valid cookie name"),
        ({"max_age": 0}, "above zero"),
        ({"same_site": "none"}, "https_only=True"),
        ({"cookie": "__Host-s"}, "https_only=True"),
    ],
)
def test_settings_that_no_browser_would_take_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SessionMiddleware(plain_app, **settings)


async def plain_app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("not called")


def test_settings_reach_the_cookie() -> None:
    site = Site(cookie="__Secure-id", https_only=True, same_site="none", domain="testserver.local", path="/put")
    with site.browser() as browser:
        cookie = browser.get("/put?a=1").headers["set-cookie"]
    assert cookie.startswith("__Secure-id=")
    assert cookie.endswith("; Path=/put; HttpOnly; SameSite=none; Secure; Domain=testserver.local; Max-Age=1209600")


# ---------------------------------------------------------------------- concurrent requests, step by step


class Exchange:
    """One request to the middleware, held inside the application until it is told to go on."""

    def __init__(self, registry: StoreRegistry, identifier: str) -> None:
        self.registry, self.identifier = registry, identifier
        self.inside, self.go = asyncio.Event(), asyncio.Event()
        self.changes: Mapping[str, Any] = {}
        self.removed: tuple[str, ...] = ()
        self.headers: list[tuple[bytes, bytes]] = []
        self.rotate = False

    async def run(self) -> None:
        scope: dict[str, Any] = {
            "type": "http",
            "headers": [(b"cookie", f"session={self.identifier}".encode())],
            "state": {"storeconf_registry": self.registry},
        }

        async def app(scope: Any, receive: Any, send: Any) -> None:
            session = scope["session"]
            self.inside.set()
            await self.go.wait()
            for key in self.removed:
                del session[key]
            session.update(self.changes)
            session.rotated = self.rotate
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body"})

        async def receive() -> Any:
            raise AssertionError("nothing to receive")

        async def send(message: Any) -> None:
            self.headers += message.get("headers", ())

        await SessionMiddleware(app)(scope, receive, send)


def together(*changes: dict[str, Any], store: Store | None = None) -> tuple[bytes | None, list[Exchange], Store]:
    """Requests that all read the session before any of them changes it, in the order given."""
    store = store or MemoryStore()

    async def main() -> tuple[bytes | None, list[Exchange]]:
        async with StoreRegistry({"sessions": store}) as registry:
            await store.set(PLANTED, '{"a":1,"b":2}', 1_209_600)
            exchanges = [Exchange(registry, PLANTED) for _ in changes]
            tasks = [asyncio.create_task(exchange.run()) for exchange in exchanges]
            for exchange in exchanges:
                await exchange.inside.wait()
            for exchange, change, task in zip(exchanges, changes, tasks, strict=True):
                exchange.changes = change.get("set", {})
                exchange.removed = change.get("remove", ())
                exchange.rotate = change.get("rotate", False)
                exchange.go.set()
                await task
            return await store.get(PLANTED), exchanges

    value, exchanges = asyncio.run(main())
    return value, exchanges, store


def test_concurrent_requests_keep_each_others_changes() -> None:
    value, _, _ = together({"set": {"a": 10}}, {"set": {"c": 3}}, {"remove": ("b",)}, {"set": {"d": 4}})
    assert value == b'{"a":10,"c":3,"d":4}'


def test_of_two_changes_to_one_key_the_later_stays() -> None:
    value, _, _ = together({"set": {"a": 10}}, {"set": {"a": 11}})
    assert value == b'{"a":11,"b":2}'


def test_no_request_brings_back_a_session_that_another_has_ended() -> None:
    value, (ended, late), _ = together({"remove": ("a", "b")}, {"set": {"a": 10}})
    assert value is None
    assert any(name == b"set-cookie" and b"Max-Age=0" in line for name, line in ended.headers)
    assert not any(name == b"set-cookie" for name, _ in late.headers)


class Deaf(MemoryStore):
    """Loses one reply to a compare-and-set, before or after it was done."""

    def __init__(self, *, done: bool) -> None:
        super().__init__()
        self.done: bool | None = done

    async def do_compare_and_set(self, *arguments: Any) -> bool:
        done, self.done = self.done, None
        if done is None or done:
            replaced = await super().do_compare_and_set(*arguments)
        if done is not None:
            raise StoreTimeoutError("no reply", outcome_unknown=True)
        return replaced


@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
def test_a_lost_reply_neither_brings_an_ended_session_back_nor_undoes_changes(done: bool) -> None:
    value, (_, late), _ = together({"remove": ("a", "b")}, {"set": {"a": 10}}, store=Deaf(done=done))
    assert value is None
    assert not any(name == b"set-cookie" for name, _ in late.headers)
    value, _, _ = together({"set": {"c": 3}}, {"set": {"a": 10}}, store=Deaf(done=done))
    assert value == b'{"a":10,"b":2,"c":3}'


class Refusing(MemoryStore):
    """Takes no compare-and-set."""

    async def do_compare_and_set(self, *arguments: Any) -> bool:
        return False


def test_a_store_that_refuses_every_change_fails_the_request() -> None:
    with pytest.raises(StoreError, match="the session changed during each of 1000 tries"):
        together({"set": {"a": 10}}, store=Refusing())


def begun_by(login: Exchange, store: Store) -> bytes | None:
    """What is stored under the identifier that a response has set."""
    (cookie,) = [line for name, line in login.headers if name == b"set-cookie"]
    identifier = cookie.decode().partition("=")[2][:43]

    async def stored() -> bytes | None:
        async with store:
            return await store.get(identifier)

    return asyncio.run(stored())


def test_a_login_while_another_request_ends_the_session_begins_a_new_one_without_its_past() -> None:
    value, (_, login), store = together({"remove": ("a", "b")}, {"set": {"user": "Ada"}, "rotate": True})
    assert value is None
    assert begun_by(login, store) == b'{"user":"Ada"}'


def test_a_login_takes_along_what_another_request_changes_at_the_last_moment() -> None:
    class Late(MemoryStore):
        async def delete(self, key: str) -> bool:  # type: ignore[override]  # Litestar's returns nothing
            await self.set(key, '{"a":1,"b":2,"c":3}')
            return await super().delete(key)

        async def pop(self, key: str) -> bytes | None:
            await self.set(key, '{"a":1,"b":2,"c":3}')
            return await super().pop(key)

    value, (login,), store = together({"set": {"user": "Ada"}, "rotate": True}, store=Late())
    assert value is None
    assert begun_by(login, store) == b'{"a":1,"b":2,"c":3,"user":"Ada"}'


def test_a_request_under_way_with_an_identifier_that_a_login_has_ended_changes_nothing() -> None:
    value, (login, late), store = together({"set": {"user": "Ada"}, "rotate": True}, {"set": {"c": 3}})
    assert value is None
    assert begun_by(login, store) == b'{"a":1,"b":2,"user":"Ada"}'
    assert not any(name == b"set-cookie" for name, _ in late.headers)


def test_on_a_backend_without_atomic_operations_the_last_whole_session_stays() -> None:
    store = PlainStore()
    value, (_, _, login), _ = together(
        {"set": {"c": 3}}, {"set": {"d": 4}}, {"set": {"user": "Ada"}, "rotate": True}, store=store
    )
    assert value is None
    assert begun_by(login, store) == b'{"a":1,"b":2,"d":4,"user":"Ada"}'


@pytest.mark.parametrize(("middleware", "status"), [({"on_error": "miss"}, 200), ({}, 500)], ids=["miss", "raise"])
def test_a_server_that_fails_within_a_request_fails_it_unless_the_layout_says_miss(
    middleware: dict[str, str], status: int
) -> None:
    async def change_after_the_end(request: Request) -> Response:
        request.session["count"] = request.session.get("count", 0) + 1
        if request.session["count"] == 2:
            await asyncio.to_thread(server.stop)
        return PlainTextResponse(str(request.session["count"]))

    with Server() as server:
        sessions = {"type": "valkey", "url": server.url, "namespace": "shop", "retries": 0, "middleware": middleware}
        app = Starlette(
            routes=[Route("/", change_after_the_end)],
            middleware=[Middleware(SessionMiddleware)],
            lifespan=lifespan({"stores": {"sessions": sessions}}),
        )
        with TestClient(app, base_url="https://testserver", raise_server_exceptions=False) as browser:
            assert browser.get("/").text == "1"
            assert browser.get("/").status_code == status
