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
    print(f"\n\033[1;36m{text}\033[0m" if COLOR else f"\n{text}\n{'─' * len(text)}", flush=True)


def show(call: str, result: object) -> None:
    value = result.decode() if isinstance(result, bytes) else result
    print(f"  {call:<60} → {value}")


def command(*arguments: str) -> None:
    """Run storeconf's own command line, as one would in a terminal."""
    typed = f"$ storeconf {' '.join(arguments)}"
    print(f"\n\033[2m{typed}\033[0m" if COLOR else f"\n{typed}", flush=True)
    subprocess.run([sys.executable, "-m", "storeconf", *arguments], cwd=HERE, check=False)


def days(seconds: int | None) -> str:
    return "never" if seconds is None else f"in {seconds / 86400:.0f} days" if seconds > 86400 else f"in {seconds} s"


async def first_run() -> None:
    registry = storeconf.load(LAYOUT, environment="development")
    async with registry:
        title("A session expires as the layout says, and every read renews it")
        sessions = registry.get("sessions")
        await sessions.set("7f3a", '{"user": 41}')
        show('sessions.set("7f3a", …)   expires', days(await sessions.expires_in("7f3a")))
        await sessions.touch("7f3a", 60)
        show('sessions.touch("7f3a", 60)   expires', days(await sessions.expires_in("7f3a")))
        show('sessions.get("7f3a")', await sessions.get("7f3a"))
        show("… which has renewed it: expires", days(await sessions.expires_in("7f3a")))

        title("The response cache: namespaces, an alias, and bulk deletion downwards")
        cache, pages, fragments = registry.get("cache"), registry.get("pages"), registry.get("fragments")
        await pages.set_many({"/": "<h1>Shop</h1>", "/cart": "<h1>Cart</h1>"})
        await fragments.set("nav", "<nav>Home</nav>")
        await cache.set("exchange-rate", "1.0847")
        show('registry.get("response_cache") is pages', registry.get("response_cache") is pages)
        show("sorted([key async for key in pages.keys()])", sorted([key async for key in pages.keys()]))
        await pages.delete_all()
        show('pages.delete_all(); pages.get("/")', await pages.get("/"))
        show('fragments.get("nav"), which lies beside: untouched', await fragments.get("nav"))
        await cache.delete_all()
        show('cache.delete_all(); fragments.get("nav"), which lies below', await fragments.get("nav"))
        show('sessions.get("7f3a"), which lies beside: untouched', await sessions.get("7f3a"))

        title("Rate limits are atomic, and each counter lives for its window")
        limits = registry.get("rate_limit")
        counts = await asyncio.gather(*[limits.increment("203.0.113.9") for _ in range(100)])
        show('100 x limits.increment("203.0.113.9") at once: the last', max(counts))
        show("no number was given twice", len(set(counts)) == 100)
        show("the window ends", days(await limits.expires_in("203.0.113.9")))

        title("A store that nobody listed is a namespace of main")
        wishlists = registry.get("wishlists")
        await wishlists.set("41", "a lamp", expires_in=timedelta(days=30))
        show('registry.get("wishlists").get("41")', await wishlists.get("41"))

        title("An expired key does not exist")
        await cache.set("flash", "sold out!", expires_in=0.05)
        show('cache.set("flash", …, expires_in=0.05); .get("flash")', await cache.get("flash"))
        while await cache.exists("flash"):  # noqa: ASYNC110 - showing that time alone does it
            await asyncio.sleep(0.01)
        show('a moment later: cache.get("flash")', await cache.get("flash"))

        title("Files hold what must survive a restart")
        uploads, jobs, flags = registry.get("uploads"), registry.get("job_results"), registry.get("flags")
        await uploads.set("invoice 2026/11: größe?.pdf", b"%PDF-1.7 " + bytes(100_000))
        await jobs.set("resize-1", "done")
        await flags.set("new-checkout", "on")
        show('jobs.get_or_set("report", factory)', await jobs.get_or_set("report", lambda: "computed once"))
        show('flags.set("new-checkout", "on")   durability: fsync', await flags.get("new-checkout"))


async def after_restart() -> None:
    async with storeconf.load(LAYOUT, environment="development") as registry:
        title("After a restart: memory is new, files have kept everything")
        show('sessions.get("7f3a")', await registry.get("sessions").get("7f3a"))
        uploads = registry.get("uploads")
        for key in sorted([key async for key in uploads.keys()]):
            show(f'uploads.get("{key}")', f"{len(await uploads.get(key) or b''):,} bytes")
        jobs = registry.get("job_results")
        for key in sorted([key async for key in jobs.keys()]):
            value = await jobs.get(key) or b""
            show(f'job_results.get("{key}")', f"{value.decode()}, expires {days(await jobs.expires_in(key))}")
        show('flags.get("new-checkout")', await registry.get("flags").get("new-checkout"))


def main() -> None:
    if sys.argv[1:] == ["--first-run"]:
        asyncio.run(first_run())
    elif sys.argv[1:] == ["--after-restart"]:
        asyncio.run(after_restart())
    else:
        shutil.rmtree(HERE / "var", ignore_errors=True)
        title("The layout, as the command line shows it")
        command("validate")
        command("tree", "--env", "development")
        command("tree", "--env", "production")
        for step in ("--first-run", "--after-restart"):
            subprocess.run([sys.executable, __file__, step], check=True)
        title("The same data, from the command line")
        command("keys", "uploads", "--env", "development")
        command("stats", "job_results", "--env", "development")
        title("Where a value comes from, and what differs in production")
        command("explain", "stores.main.type", "--env", "production")
        command("diff", "development", "production")


if __name__ == "__main__":
    main()
