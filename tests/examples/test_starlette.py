"""examples/starlette does over HTTP and WebSockets what it claims, on every backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.testclient import TestClient

from tests.examples.pages import Pages, pages, servers

if TYPE_CHECKING:
    import pytest

__all__ = ["pages", "servers"]

DIRECTORY = "starlette"


def test_chat(pages: Pages, capsys: pytest.CaptureFixture[str]) -> None:
    with TestClient(pages("chat").app) as client:
        client.post("/join/Ada")
        with client.websocket_connect("/chat") as websocket:
            for number, text in enumerate(("hello", "bye"), 1):
                websocket.send_text(text)
                assert websocket.receive_text() == f"{number}: Ada says {text}"
    assert capsys.readouterr().out == "the stores are open\nand still are\n"
