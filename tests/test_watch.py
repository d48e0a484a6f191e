"""Watching the files of a layout: contents are compared, however they come to change."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from litestar import Litestar
from starlette.applications import Starlette

import storeconf
from storeconf.integrations.litestar import StoreconfPlugin
from storeconf.integrations.starlette import lifespan
from tests.above.backends import in_loop
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

MAIN = "stores: {main: {type: memory, middleware: {ttl: %s}}}\n"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def lifetime(registry: storeconf.StoreRegistry) -> float | None:
    return registry["main"].default_expiry


@in_loop
async def test_a_registry_without_a_layout_cannot_be_watched() -> None:
    with pytest.raises(TypeError, match="without a layout"):
        storeconf.watch(storeconf.StoreRegistry())


@in_loop
async def test_changes_of_every_file_that_was_read_or_looked_for_count(tmp_path: Path) -> None:
    base, file, secret = tmp_path / "base.yaml", tmp_path / "shop.yaml", tmp_path / "secret"
    base.write_text("stores: {main: {type: memory, middleware: {ttl: 1}}}")
    file.write_text("extends: [base.yaml]\nstores: {other: {type: memory, description: '${file:secret:-none}'}}")
    overlay = tmp_path / "shop.night.yaml"
    overlay.write_text("{}")
    registry = storeconf.load(file, environment="night", environ={})
    async with registry, storeconf.watch(registry, interval=0.02):
        base.write_text("stores: {main: {type: memory, middleware: {ttl: 2}}}")
        await until(lambda: lifetime(registry) == 2)
        overlay.write_text("stores: {main: {middleware: {ttl: 3}}}")
        await until(lambda: lifetime(registry) == 3)
        overlay.unlink()
        (tmp_path / "shop.night.json").write_text('{"stores": {"main": {"middleware": {"ttl": 4}}}}')
        await until(lambda: lifetime(registry) == 4)
        (tmp_path / "more.yaml").write_text("stores: {more: {type: memory}}")
        file.write_text("extends: [base.yaml, more.yaml]")
        await until(lambda: "more" in registry and "other" not in registry)
        (tmp_path / "more.yaml").write_text("stores: {most: {type: memory}}")
        await until(lambda: "most" in registry)
    assert not secret.exists()


@in_loop
async def test_a_secret_file_that_appears_counts(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text("stores: {main: {type: memory, middleware: {ttl: '${file:seconds:-5}'}}}")
    registry = storeconf.load(file, environ={})
    async with registry, storeconf.watch(registry, interval=0.02):
        assert lifetime(registry) == 5
        (tmp_path / "seconds").write_text("6\n")
        await until(lambda: lifetime(registry) == 6)


@in_loop
async def test_links_that_are_swapped_count(tmp_path: Path) -> None:
    """Kubernetes mounts a ConfigMap as a link to a link, and swaps the second."""
    for number in (1, 2):
        (tmp_path / f"v{number}").mkdir()
        (tmp_path / f"v{number}" / "shop.yaml").write_text(MAIN % number)
        os.utime(tmp_path / f"v{number}" / "shop.yaml", (0, 0))
    (tmp_path / "data").symlink_to("v1")
    (tmp_path / "shop.yaml").symlink_to("data/shop.yaml")
    registry = storeconf.load(tmp_path / "shop.yaml", environ={})
    async with registry, storeconf.watch(registry, interval=0.02):
        (tmp_path / "next").symlink_to("v2")
        (tmp_path / "next").replace(tmp_path / "data")
        await until(lambda: lifetime(registry) == 2)


@in_loop
async def test_what_changed_before_the_watch_began_counts(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(MAIN % 1)
    registry = storeconf.load(file, environ={})
    file.write_text(MAIN % 2)
    async with registry, storeconf.watch(registry, interval=60):
        assert lifetime(registry) == 2


@in_loop
async def test_a_layout_with_problems_is_logged_once_per_content(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(MAIN % 1)
    registry = storeconf.load(file, environ={})

    def errors() -> list[str]:
        return [record.message for record in caplog.records if record.levelno == logging.ERROR]

    async with registry, storeconf.watch(registry, interval=0.02):
        file.write_text("stores: {main: {type: mem")
        await until(lambda: len(errors()) == 1)
        await asyncio.sleep(0.2)
        file.write_text("stores: {main: {type: nothing}}")
        await until(lambda: len(errors()) == 2)
        file.unlink()
        await until(lambda: len(errors()) == 3)
        await asyncio.sleep(0.2)
        assert len(errors()) == 3
        assert "nothing" in errors()[1]
        assert lifetime(registry) == 1
        file.write_text(MAIN % 2)
        await until(lambda: lifetime(registry) == 2)


@in_loop
async def test_sighup_reloads_at_once_if_asked(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(MAIN % 1)
    registry = storeconf.load(file, environ={})
    before = signal.getsignal(signal.SIGHUP)
    async with registry, storeconf.watch(registry, interval=60, sighup=True):
        file.write_text(MAIN % 2)
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: lifetime(registry) == 2)
    assert signal.getsignal(signal.SIGHUP) == before


def test_only_the_main_thread_can_watch_for_signals(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(MAIN % 1)
    raised: list[Exception] = []

    async def main() -> None:
        registry = storeconf.load(tmp_path / "shop.yaml", environ={})
        try:
            async with storeconf.watch(registry, sighup=True):
                pass
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join()
    assert len(raised) == 1


@in_loop
async def test_litestar_applications_watch_if_asked(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(MAIN % 1)
    app = Litestar(plugins=[plugin := StoreconfPlugin(file, watch=True)])
    async with app.lifespan():
        file.write_text(MAIN % 2)
        await until(lambda: lifetime(plugin.registry) == 2)
    with pytest.raises(TypeError, match="without a layout"):
        StoreconfPlugin(storeconf.StoreRegistry(), watch=True)


@pytest.mark.parametrize("framework", ["litestar", "starlette"])
def test_integrations_reload_on_sighup_if_asked(
    framework: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(MAIN % "'${SECONDS}'")
    monkeypatch.setenv("SECONDS", "1")

    @in_loop
    async def main() -> None:
        registry = storeconf.load(file)
        running: AbstractAsyncContextManager[Any]
        if framework == "litestar":
            running = Litestar(plugins=[StoreconfPlugin(registry, watch=True, sighup=True)]).lifespan()
        else:
            app = Starlette(lifespan=lifespan(registry, watch=True, sighup=True))
            running = app.router.lifespan_context(app)
        before = signal.getsignal(signal.SIGHUP)
        async with running:
            monkeypatch.setenv("SECONDS", "2")  # which looking at files does not find
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: lifetime(registry) == 2)
        assert signal.getsignal(signal.SIGHUP) == before

    main()


def test_sighup_without_a_watch_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(MAIN % 1)
    with pytest.raises(ValueError, match="watch=True"):
        StoreconfPlugin(tmp_path / "shop.yaml", sighup=True)
    with pytest.raises(ValueError, match="watch=True"):
        lifespan(tmp_path / "shop.yaml", sighup=True)


APPLICATION = """
import os
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from storeconf.integrations.starlette import lifespan, store_of

async def index(request):
    return PlainTextResponse(f"{os.getpid()} {store_of(request, 'main').default_expiry:g}")

app = Starlette(routes=[Route("/", index)], lifespan=lifespan("shop.yaml", watch=True))
"""


def test_all_workers_of_uvicorn_follow_one_write(tmp_path: Path) -> None:
    (tmp_path / "application.py").write_text(APPLICATION)
    (tmp_path / "shop.yaml").write_text(MAIN % 1)
    port = free_port()

    async def answer() -> tuple[str, str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        text = await reader.read()
        writer.close()
        process, seconds = text.decode().rpartition("\r\n\r\n")[2].split()
        return process, seconds

    async def work() -> None:
        command = [sys.executable, "-m", "uvicorn", "application:app", "--port", str(port), "--workers", "4"]
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        process = await asyncio.create_subprocess_exec(
            *command, cwd=tmp_path, env=environ, stderr=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(60):
                workers: set[str] = set()
                while len(workers) < 4:
                    try:
                        workers.add((await answer())[0])
                    except OSError:
                        await asyncio.sleep(0.1)
            (tmp_path / "draft").write_text(MAIN % 2)
            (tmp_path / "draft").replace(tmp_path / "shop.yaml")
            followed: set[str] = set()
            async with asyncio.timeout(3):
                while followed < workers:
                    for name, seconds in await asyncio.gather(*(answer() for _ in range(20))):
                        assert name in workers
                        if seconds == "2":
                            followed.add(name)
        finally:
            process.terminate()
            await process.wait()

    asyncio.run(work())
