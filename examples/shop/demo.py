"""The main job on a real layout: show it, run the shop in `development`, restart, and see what survived.

Run it with `make demo`. Everything happens on embedded stores, in examples/shop/var.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import storeconf

HERE = Path(__file__).parent
LAYOUT = HERE / "storeconf.yaml"
COLOR = sys.stdout.isatty()


def title(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if COLOR else f"\n{text}\n{'─' * len(text)}")


def show(call: str, result: object) -> None:
    print(f"  {call:<58} → {result}")


def storeconf_command(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "storeconf", *arguments, "-f", LAYOUT.name], cwd=HERE, check=True)


async def first_run() -> None:
    registry = storeconf.load(LAYOUT, environment="development")
    async with registry:
        title("A session: expires by the layout, renewed by every read")
        sessions = registry.get("sessions")
        await sessions.set("7f3a", '{"user": 41}')
        show('sessions.set("7f3a", …); sessions.expires_in("7f3a")', await sessions.expires_in("7f3a"))
        await sessions.touch("7f3a", 60)
        show('sessions.touch("7f3a", 60); .expires_in', await sessions.expires_in("7f3a"))
        show('sessions.get("7f3a")', await sessions.get("7f3a"))
        show("… and reading has renewed it: .expires_in", await sessions.expires_in("7f3a"))

        title("The response cache: namespaces, an alias, and bulk deletion downwards")
        cache, pages, fragments = registry.get("cache"), registry.get("pages"), registry.get("fragments")
        await pages.set_many({"/": "<h1>Shop</h1>", "/cart": "<h1>Cart</h1>"})
        await fragments.set("nav", "<nav>…</nav>")
        await cache.set("exchange-rate", "1.0847")
        show('registry.get("response_cache") is pages', registry.get("response_cache") is pages)
        show("sorted([key async for key in pages.keys()])", sorted([key async for key in pages.keys()]))
        await pages.delete_all()
        show('pages.delete_all(); pages.get("/")', await pages.get("/"))
        show('fragments.get("nav")  (a sibling: untouched)', await fragments.get("nav"))
        await cache.delete_all()
        show('cache.delete_all(); fragments.get("nav")  (below it)', await fragments.get("nav"))
        show('sessions.get("7f3a")  (beside it: untouched)', await sessions.get("7f3a"))

        title("Rate limits: atomic, each counter lives for its window")
        limits = registry.get("rate_limit")
        counts = await asyncio.gather(*[limits.increment("203.0.113.9") for _ in range(100)])
        show(
            '100 x limits.increment("203.0.113.9"), concurrently',
            f"max {max(counts)}, all different: "
            f"{len(set(counts)) == 100}, window ends in {await limits.expires_in('203.0.113.9')} s",
        )

        title("A store that nobody listed: the default factory makes a namespace of main")
        wishlists = registry.get("wishlists")
        await wishlists.set("41", "a lamp", expires_in=timedelta(days=30))
        show('registry.get("wishlists").get("41")', await wishlists.get("41"))

        title("Expiry: an expired key does not exist")
        await cache.set("flash", "sold out!", expires_in=0.05)
        while await cache.exists("flash"):  # noqa: ASYNC110 - showing that time alone does it
            await asyncio.sleep(0.01)
        show('cache.set("flash", …, expires_in=0.05); later: .get', await cache.get("flash"))

        title("Files: what must survive a restart")
        uploads, jobs, flags = registry.get("uploads"), registry.get("job_results"), registry.get("flags")
        await uploads.set("invoice 2026/11: größe?.pdf", b"%PDF-1.7 " + bytes(100_000))
        await jobs.set("resize-1", "done")
        await flags.set("new-checkout", "on")
        made = await jobs.get_or_set("report", lambda: "computed once")
        show('jobs.get_or_set("report", factory)', made)
        show('flags.set("new-checkout", "on")  (durability: fsync)', await flags.get("new-checkout"))

        title("Every store answers")
        for name, result in (await registry.ping()).items():
            if name in {"main", "sessions", "uploads", "flags"}:
                took = f"ok in {(result.latency or 0) * 1000:.2f} ms" if result.ok else result.error
                show(f"ping {name}", took)


async def after_restart() -> None:
    async with storeconf.load(LAYOUT, environment="development") as registry:
        title("After a restart: memory is new, files have kept everything")
        show('sessions.get("7f3a")', await registry.get("sessions").get("7f3a"))
        uploads = registry.get("uploads")
        for key in sorted([key async for key in uploads.keys()]):
            show(f"uploads[{key!r}]", f"{len(await uploads.get(key) or b''):,} bytes")
        jobs = registry.get("job_results")
        for key in sorted([key async for key in jobs.keys()]):
            left = await jobs.expires_in(key) or 0
            show(f"job_results[{key!r}]", f"{await jobs.get(key)!r}, expires in {left / 86400:.1f} days")
        show('flags.get("new-checkout")', await registry.get("flags").get("new-checkout"))


def main() -> None:
    if sys.argv[1:] == ["--first-run"]:
        asyncio.run(first_run())
    elif sys.argv[1:] == ["--after-restart"]:
        asyncio.run(after_restart())
    else:
        shutil.rmtree(HERE / "var", ignore_errors=True)
        title("The layout, in development and in production")
        for environment in ("development", "production"):
            storeconf_command("tree", "--env", environment)
            print(flush=True)
        for step in ("--first-run", "--after-restart"):
            subprocess.run([sys.executable, __file__, step], check=True)
        title("Where a value comes from")
        print(flush=True)
        storeconf_command("explain", "stores.main.type", "--env", "production")
        print()


if __name__ == "__main__":
    main()
