"""A misspelt name of a store keeps an application from starting; private memory does not answer for it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from storeconf import MemoryStore, Store, StoreRegistry, UnknownStoreError
from storeconf.integrations import fastapi as fastapi_names
from storeconf.integrations import litestar as litestar_names
from storeconf.integrations import starlette as starlette_names
from storeconf.integrations.fastapi import SessionMiddleware, lifespan, store, store_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request

LAYOUT: dict[str, Any] = {"stores": {"sessions": {"type": "memory"}}}

Misspelt = Annotated[Store, store("sesions")]


def starts(app: Any) -> None:
    with TestClient(app):
        pass


def refused(app: Any) -> None:
    with pytest.raises(UnknownStoreError, match="unknown store 'sesions'; did you mean 'sessions'"):
        starts(app)


async def nothing(request: Request) -> Response:
    return PlainTextResponse("")


def parameter(app: FastAPI) -> None:
    @app.get("/")
    async def index(sessions: Misspelt) -> None: ...


def inner_dependency(sessions: Misspelt) -> None: ...


def outer_dependency(value: Annotated[None, Depends(inner_dependency)]) -> None: ...


def nested(app: FastAPI) -> None:
    @app.get("/")
    async def index(value: Annotated[None, Depends(outer_dependency)]) -> None: ...


def decorator(app: FastAPI) -> None:
    @app.get("/", dependencies=[store("sesions")])
    async def index() -> None: ...


def websocket(app: FastAPI) -> None:
    @app.websocket("/")
    async def index(socket: WebSocket, sessions: Misspelt) -> None: ...


def included(app: FastAPI) -> None:
    inner, outer = APIRouter(), APIRouter()

    @inner.get("/")
    async def index(sessions: Misspelt) -> None: ...

    outer.include_router(inner, prefix="/inner")
    app.include_router(outer, prefix="/outer")


def included_with(app: FastAPI) -> None:
    router = APIRouter()

    @router.get("/")
    async def index() -> None: ...

    app.include_router(router, dependencies=[store("sesions")])


def router_wide(app: FastAPI) -> None:
    router = APIRouter(dependencies=[store("sesions")])

    @router.get("/")
    async def index() -> None: ...

    app.include_router(router)


def mounted(app: FastAPI) -> None:
    child = FastAPI()
    parameter(child)
    app.mount("/child", child)


def mounted_in_middleware(app: FastAPI) -> None:
    class Layer:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)

    child = FastAPI()
    parameter(child)
    app.mount("/child", Layer(Layer(child)))


PLACES = [
    parameter,
    nested,
    decorator,
    websocket,
    included,
    included_with,
    router_wide,
    mounted,
    mounted_in_middleware,
]


@pytest.mark.parametrize("place", PLACES)
def test_fastapi_does_not_start_with_a_misspelt_dependency(place: Callable[[FastAPI], None]) -> None:
    app = FastAPI(lifespan=lifespan(LAYOUT))
    place(app)
    refused(app)


def test_a_dependency_of_the_whole_application_is_checked_too() -> None:
    app = FastAPI(lifespan=lifespan(LAYOUT), dependencies=[store("sesions")])

    @app.get("/")
    async def index() -> None: ...

    refused(app)


@pytest.mark.parametrize(
    "app",
    [
        Starlette(middleware=[Middleware(SessionMiddleware, store="sesions")], lifespan=lifespan(LAYOUT)),
        SessionMiddleware(Starlette(lifespan=lifespan(LAYOUT)), store="sesions"),
        Starlette(
            routes=[Mount("/", Starlette(middleware=[Middleware(SessionMiddleware, store="sesions")]))],
            lifespan=lifespan(LAYOUT),
        ),
        Starlette(
            routes=[Mount("/", routes=[], middleware=[Middleware(SessionMiddleware, store="sesions")])],
            lifespan=lifespan(LAYOUT),
        ),
        Starlette(
            routes=[Route("/", nothing, middleware=[Middleware(SessionMiddleware, store="sesions")])],
            lifespan=lifespan(LAYOUT),
        ),
    ],
    ids=["application", "around", "mounted application", "mount", "route"],
)
def test_starlette_does_not_start_with_a_session_middleware_on_a_misspelt_store(app: Any) -> None:
    refused(app)


def test_an_application_that_does_not_start_closes_what_it_opened() -> None:
    registry = StoreRegistry({"sessions": MemoryStore()})
    refused(Starlette(middleware=[Middleware(SessionMiddleware, store="sesions")], lifespan=lifespan(registry)))
    refused(SessionMiddleware(Starlette(lifespan=lifespan(registry)), store="sesions"))
    assert not registry.is_open


def test_a_name_that_is_asked_for_during_a_request_is_an_error_then() -> None:
    async def index(request: Request) -> Response:
        store_of(request, "sesions")
        return PlainTextResponse("private memory")

    with (
        TestClient(Starlette(routes=[Route("/", index)], lifespan=lifespan(LAYOUT))) as client,
        pytest.raises(UnknownStoreError, match="sesions"),
    ):
        client.get("/")


@pytest.mark.parametrize(
    "source",
    [
        {**LAYOUT, "default_factory": {"parent": "sessions"}},
        {**LAYOUT, "default_factory": {"use": "sessions"}},
        {**LAYOUT, "default_factory": {"type": "memory"}},
        StoreRegistry({"sesions": MemoryStore()}),
        StoreRegistry(default_factory=lambda name: MemoryStore()),
    ],
    ids=["parent", "use", "type", "registered", "factory of the program"],
)
def test_a_name_is_good_if_it_is_registered_or_there_is_a_default_factory(source: Any) -> None:
    app = FastAPI(lifespan=lifespan(source))
    app.add_middleware(SessionMiddleware, store="sesions")
    for place in PLACES:
        place(app)
    starts(app)


@pytest.mark.parametrize(
    "source", [{**LAYOUT, "default_factory": "forbid"}, StoreRegistry({"sessions": MemoryStore()})]
)
def test_a_name_is_refused_where_others_are_forbidden_and_where_only_the_library_would_make_a_store(
    source: Any,
) -> None:
    app = FastAPI(lifespan=lifespan(source))
    parameter(app)
    refused(app)


def test_a_lifespan_of_the_application_may_register_the_store() -> None:
    registry = StoreRegistry({"sessions": MemoryStore()})

    @asynccontextmanager
    async def then(app: Any) -> AsyncIterator[None]:
        registry.register("sesions", MemoryStore())
        yield

    app = FastAPI(lifespan=lifespan(registry, then=then))
    app.add_middleware(SessionMiddleware, store="sesions")
    parameter(app)
    starts(app)


def test_the_registry_gives_what_is_declared_and_only_that() -> None:
    registry = StoreRegistry({"a": MemoryStore()})
    assert registry.require("a") is registry.get("a")
    with pytest.raises(UnknownStoreError):
        registry.require("b")
    made = registry.get("b")  # as Litestar's registry would
    assert registry.require("b") is made


def test_the_adapters_export_what_the_documentation_imports_from_them() -> None:
    of_starlette = ["SessionMiddleware", "lifespan", "registry_of", "revoke_sessions", "rotate_session", "store_of"]
    assert starlette_names.__all__ == of_starlette
    assert fastapi_names.__all__ == sorted([*of_starlette, "registry", "store"])
    assert litestar_names.__all__ == [
        "LitestarRegistry",
        "RateLimitConfig",
        "SessionConfig",
        "StoreconfPlugin",
        "revoke_sessions",
        "rotate_session",
    ]
