"""examples/py-key-value does over HTTP what it claims, on every backend."""

from __future__ import annotations

from fastapi.testclient import TestClient

from tests.examples.pages import Pages, pages, servers

__all__ = ["pages", "servers"]

DIRECTORY = "py-key-value"


def test_notes(pages: Pages) -> None:
    with TestClient(pages("notes").app) as client:
        assert client.get("/notes/milk").status_code == 404
        client.put("/notes/milk", json={"text": "two bottles"})
        client.put("/notes/bread", json={"text": "brown", "stars": 3}, params={"seconds": 60})
        assert client.get("/notes/milk").json() == {"text": "two bottles", "stars": 0}
        assert client.get("/collections").json() == ["user:ada"]
        assert client.delete("/notes/milk").json() is True
        assert client.delete("/notes/milk").json() is False
    with TestClient(pages("notes").app) as client:
        assert client.get("/notes/bread").status_code == (200 if pages.persistent else 404)
