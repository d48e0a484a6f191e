"""examples/fastapi does over HTTP what it claims, on every backend."""

from __future__ import annotations

from fastapi.testclient import TestClient

from tests.examples.pages import Pages, pages, servers

__all__ = ["pages", "servers"]

DIRECTORY = "fastapi"


def test_shop(pages: Pages) -> None:
    with TestClient(pages("shop").app) as client:
        assert client.get("/").json() == client.get("/").json() == "rendering 1"
        assert client.post("/basket/lamp").json() == ["lamp"]
        assert client.post("/basket/chair").json() == ["lamp", "chair"]
        before = client.cookies["session"]
        client.post("/login/Ada")
        assert client.cookies["session"] != before
        assert client.get("/me").json() == {"basket": ["lamp", "chair"], "user": "Ada"}
        assert client.get("/me", headers={"Cookie": f"session={before}"}).json() == {}
        client.post("/logout")
        assert client.get("/me").json() == {}
        assert client.get("/health").json() == {"main": True, "sessions": True, "pages": True}
