"""`make demo` does what it says: the example shop runs on embedded stores, restarts, and shows what it kept."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.cli.running import environment

SHOP = Path(__file__).parent.parent / "examples/shop"

LINES = """
$ storeconf validate
development, staging, production: storeconf.yaml: no problems
$ storeconf tree --env development
│  ├─ pages              shop:cache:html       ttl 15m, max 1d, jitter 0.1
any other name           shop:<name>
any other name                                 is an error
sessions.set("7f3a", …) expires → in 14 days
sessions.touch("7f3a", 60) expires → in 60 s
… which has renewed it: expires → in 14 days
registry.get("response_cache") is pages → True
sorted([key async for key in pages.keys()]) → ['/', '/cart']
pages.delete_all(); pages.get("/") → None
fragments.get("nav"), which lies beside: untouched → <nav>Home</nav>
cache.delete_all(); fragments.get("nav"), which lies below → None
100 x limits.increment("203.0.113.9") at once: the last → 100
no number was given twice → True
registry.get("wishlists").get("41") → a lamp
cache.set("flash", …, expires_in=0.05); .get("flash") → sold out!
a moment later: cache.get("flash") → None
After a restart: memory is new, files have kept everything
sessions.get("7f3a") → None
uploads.get("invoice 2026/11: größe?.pdf") → 100,009 bytes
job_results.get("report") → computed once, expires in 7 days
flags.get("new-checkout") → on
invoice 2026/11: größe?.pdf
entries          2
valkey  storeconf.yaml:85:15  environment
memory  storeconf.yaml:10:11  file, shadowed
~ stores.main.type               memory → valkey
"""


def squeezed(text: str) -> list[str]:
    return [re.sub(" +", " ", line).strip() for line in text.splitlines()]


def test_the_demo_shows_what_it_promises(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    shutil.copytree(SHOP, shop, ignore=shutil.ignore_patterns("var"))
    done = subprocess.run(
        [sys.executable, "demo.py"],
        cwd=shop,
        env=environment({"PYTHONWARNINGS": "error"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=100,
        check=False,
    )
    text = done.stdout.decode()
    assert done.returncode == 0, text
    printed = squeezed(text)
    assert [line for line in squeezed(LINES) if line not in printed] == [], text
    assert "Traceback" not in text
