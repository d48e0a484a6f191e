"""FastAPI: stores as dependencies, a server-side session, and a page that is rendered once a minute."""

from itertools import count
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request

from storeconf import Store, StoreRegistry
from storeconf.integrations.fastapi import SessionMiddleware, lifespan, registry, rotate_session, store

Pages = Annotated[Store, store("pages")]
Registry = Annotated[StoreRegistry, registry()]
renderings = count(1)


def session(request: Request) -> dict[str, Any]:
    return request.session


Session = Annotated[dict[str, Any], Depends(session)]

app = FastAPI(lifespan=lifespan(Path(__file__).with_name("storeconf.yaml")))
app.add_middleware(SessionMiddleware, store="sessions")


@app.get("/")
async def index(pages: Pages) -> str:
    return (await pages.get_or_set("index", lambda: f"rendering {next(renderings)}")).decode()


@app.post("/basket/{item}")
async def add(item: str, session: Session) -> list[str]:
    session["basket"] = [*session.get("basket", []), item]
    return list(session["basket"])


@app.post("/login/{user}")
async def login(user: str, request: Request, session: Session) -> None:
    rotate_session(request)
    session["user"] = user


@app.get("/me")
async def me(session: Session) -> dict[str, Any]:
    return session


@app.post("/logout")
async def logout(session: Session) -> None:
    session.clear()


@app.get("/health")
async def health(registry: Registry) -> dict[str, bool]:
    return {name: result.ok for name, result in (await registry.ping()).items()}
