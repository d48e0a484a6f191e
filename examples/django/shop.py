"""Django: a page that is rendered once, and a counter that all workers share, on whatever store the layout says.

Run it with ``gunicorn shop:application`` in this directory.
"""

import os
from pathlib import Path

from django.conf import settings
from django.core.cache import cache
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.cache import cache_page

HERE = Path(__file__).parent

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("SECRET_KEY", "development only"),
    CACHES={
        "default": {
            "BACKEND": "storeconf.integrations.django.StoreconfCache",
            "LOCATION": "pages",
            "OPTIONS": {"layout": HERE / "storeconf.yaml", "serializer": "pickle"},
        }
    },
)


@cache_page(60)
def page(request: HttpRequest) -> JsonResponse:
    """Return the worker that rendered the page: the same one for a minute, whichever worker answers."""
    return JsonResponse({"rendered by": os.getpid()})


def visit(request: HttpRequest) -> JsonResponse:
    cache.get_or_set("visits", 0, timeout=None)
    return JsonResponse({"visits": cache.incr("visits"), "worker": os.getpid()})


async def seen(request: HttpRequest) -> JsonResponse:
    return JsonResponse(await cache.aget_many(["visits", "nothing"]))


urlpatterns = [path("page", page), path("visit", visit), path("seen", seen)]
application = get_wsgi_application()
