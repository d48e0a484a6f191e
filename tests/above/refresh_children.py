"""Processes that want the same value of a store with ``refresh``. Run as a module."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import storeconf


async def want(settings: dict[str, Any], directory: Path, moment: float, how: str) -> None:
    """Ask for the value in ten tasks at the same moment as the others; write what the first of them got."""

    async def factory() -> bytes:
        (directory / f"run-{os.getpid()}-{time.monotonic_ns()}").touch()
        if how == "hanging":
            print("computes", flush=True)
            await asyncio.sleep(60)
        await asyncio.sleep(0.3)
        if how == "failing":
            raise OSError("down")
        return b"made"

    async with storeconf.load(settings, environ={}) as registry:
        await registry["s"].exists("k")
        await asyncio.sleep(moment - time.time())
        got = await asyncio.gather(
            *(registry["s"].get_or_set("k", factory, 60) for _ in range(10)), return_exceptions=True
        )
        assert len({repr(each) for each in got}) == 1
        print("got", got[0].decode() if isinstance(got[0], bytes) else type(got[0]).__name__, flush=True)


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    asyncio.run(want(arguments[0], Path(arguments[1]), arguments[2], arguments[3]))
