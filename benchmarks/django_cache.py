"""A page of Django that uses its cache, on our backend and on Django's own for Redis.

Run it as ``python benchmarks/django_cache.py``; it takes half a minute.

Requests per second, in turn within one process, on a Valkey server of its own, in one thread and in several; and the
processor time of a request, which says more on a machine that has other work. A request reads one value, three values
at once, and one by ``get_or_set``.
"""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
from django.conf import settings
from django.core.cache import caches
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.urls import path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._harness import compete, show
from tests.servers import Server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

ROUNDS = 7
SECONDS = 0.4


def configure(server: Server) -> None:
    main = {"type": "valkey", "url": f"valkey://{server.address}", "namespace": "bench"}
    ours = {
        "BACKEND": "storeconf.integrations.django.StoreconfCache",
        "LOCATION": "main",
        "OPTIONS": {"layout": {"stores": {"main": main}}},
    }
    theirs = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": f"redis://{server.address}"}
    settings.configure(
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="benchmark",
        MIDDLEWARE=[],
        LOGGING_CONFIG=None,
        CACHES={"default": ours, "redis": theirs},
    )
    django.setup()


def page(request: HttpRequest, alias: str) -> HttpResponse:
    cache = caches[alias]
    if cache.get("user") is None:
        cache.set("user", {"name": "Ada", "roles": ["reader"] * 20}, 600)
    if len(cache.get_many(["a", "b", "c"])) < 3:
        cache.set_many(dict.fromkeys("abc", "x" * 500), 600)
    return HttpResponse(cache.get_or_set("body", lambda: "y" * 5000, 600))


urlpatterns = [path("<alias>/", page)]


def requests(alias: str) -> Callable[[], Awaitable[Mapping[str, float]]]:
    handler, environ = WSGIHandler(), RequestFactory().get(f"/{alias}/").environ

    def work(until: float) -> int:
        count = 0
        while time.perf_counter() < until:
            handler(dict(environ), lambda *_: None).close()
            count += 1
        return count

    def measured() -> Mapping[str, float]:
        figures: dict[str, Any] = {}
        for threads in (1, 4, 16):
            with ThreadPoolExecutor(threads) as pool:
                spent, until = time.process_time(), time.perf_counter() + SECONDS
                count = sum(pool.map(work, [until] * threads))
                figures[f"{threads} threads"] = count / SECONDS
                figures[f"{threads} threads, per second of processor time"] = count / (time.process_time() - spent)
        return figures

    return lambda: asyncio.to_thread(measured)


def main() -> None:
    with Server("valkey-9.1") as server:
        configure(server)
        figures = asyncio.run(compete({"storeconf": requests("default"), "Django": requests("redis")}, ROUNDS))
        show(
            "Requests of a page with Django's cache, per second",
            figures,
            ours=["storeconf"],
            peers=["Django"],
            more_is_better=list(figures["storeconf"]),
        )


if __name__ == "__main__":
    main()
