"""examples/flask does over HTTP, in many threads, what it claims, on every backend."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
from werkzeug.serving import make_server

from storeconf.sync import lock
from tests.examples.pages import Pages, pages, servers

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["pages", "servers"]

DIRECTORY = "flask"


@contextmanager
def served(shop: Any) -> Iterator[httpx.Client]:
    server = make_server("127.0.0.1", 0, shop.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}") as client:
            yield client
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        shop.registry.close()


def test_shop(pages: Pages) -> None:
    shop = pages("shop")
    with served(shop) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.get("/price/bolt").json(), range(8)))
        assert answers == [{"cents": 400}] * 8
        assert shop.registry["counters"].get("asked") == b"1"
        assert client.delete("/price/bolt").text == "forgotten"
        assert client.delete("/price/bolt").text == "not there"
        client.get("/price/bolt")
        assert shop.registry["counters"].get("asked") == b"2"
        with lock(shop.registry["jobs"], "2026-11"):
            assert client.post("/report/2026-11").status_code == 409
        assert client.post("/report/2026-11").json() == {"month": "2026-11", "rows": 2}
    if pages.persistent:
        again = pages("shop")  # as another process
        with served(again) as client:
            assert client.get("/price/bolt").json() == {"cents": 400}
            assert again.registry["counters"].get("asked") == b"2"
