"""examples/limits does over HTTP what it claims, on every backend."""

from __future__ import annotations

from fastapi.testclient import TestClient

from tests.examples.pages import Pages, pages, servers

__all__ = ["pages", "servers"]

DIRECTORY = "limits"


def test_quota(pages: Pages) -> None:
    with TestClient(pages("quota").app) as client:
        assert [client.post("/questions/ada").json() for _ in range(3)] == [2, 1, 0]
        assert client.post("/questions/ada").status_code == 429
        assert client.post("/questions/bob").json() == 2
        assert client.post("/reports/ada").json() == "a report"
        assert client.post("/reports/ada").status_code == 429
    with TestClient(pages("quota").app) as client:
        again = 429 if pages.persistent else 200
        assert client.post("/questions/ada").status_code == again
        assert client.post("/reports/ada").status_code == again
