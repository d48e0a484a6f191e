"""A middleware's store is in the registry like any other: this page ends everybody's session."""

from pathlib import Path

from litestar import Litestar, Request, delete, get
from litestar.middleware.session.server_side import ServerSideSessionConfig

from storeconf.integrations.litestar import StoreconfPlugin

LAYOUT = Path(__file__).with_name("integrations.yaml")


@get("/login")
async def login(request: Request) -> None:
    request.session["user"] = "Ada"


@get("/whoami")
async def whoami(request: Request) -> str:
    return str(request.session.get("user", "nobody"))


@delete("/sessions", exclude_from_session=True)
async def end_sessions(request: Request) -> None:
    await request.app.stores.get("sessions").delete_all()


sessions = ServerSideSessionConfig(exclude_opt_key="exclude_from_session")
app = Litestar([login, whoami, end_sessions], plugins=[StoreconfPlugin(LAYOUT)], middleware=[sessions.middleware])
