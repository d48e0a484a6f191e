"""From a file to a live registry, by the front door."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

import storeconf
from storeconf import ConfigError, StoreClosedError, StoreRegistry, UnknownStoreError

SHOP = Path(__file__).parent.parent / "examples" / "shop" / "storeconf.yaml"

LAYOUT = """
stores:
  pages: {parent: cache, namespace: html}
  rate_limit: {use: cache}
  main:
    type: memory
    namespace: shop
    middleware:
      limit: {value_size: 1KiB}
      ttl: 1h
  cache: {parent: main}
  sessions:
    parent: main
    middleware: {ttl: {default: 10s, renew_on_get: true}}
  raw:
    parent: main
    middleware: {ttl: false, limit: false}
  kept: {type: file, path: var/kept, create: true}
default_factory: {parent: cache, max_stores: 10}
environments:
  strict: {default_factory: forbid}
  plain: {default_factory: {type: memory}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "storeconf.yaml"
    path.write_text(LAYOUT)
    return path


def load(file: Path, environment: str | None = None) -> StoreRegistry:
    return storeconf.load(file, environment=environment, environ={})


def test_a_warning_that_is_logged_names_the_environment_first(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text(LAYOUT + "  odd: {unset: [stores.main.max_entries]}\n")
    with caplog.at_level(logging.WARNING, "storeconf"):
        load(file, "odd")
    (record,) = caplog.records
    assert record.getMessage().startswith(f"odd: {file}:23:17: warning SC802: ")


def test_a_file_becomes_a_live_registry(file: Path) -> None:
    async def main() -> None:
        async with load(file, "plain") as registry:
            assert registry.names() == ["pages", "rate_limit", "main", "cache", "sessions", "raw", "kept"]
            pages, cache, sessions = registry["pages"], registry["cache"], registry["sessions"]
            assert registry["rate_limit"] is cache
            assert (pages.namespaces, pages.name) == (("shop", "cache", "html"), "pages")
            await pages.set("/", "<html>")
            await cache.set("k", "v")
            await sessions.set("ada", "…")
            await registry["raw"].set("k", b"x" * 2000)
            assert await pages.expires_in("/") == 3600
            assert await sessions.expires_in("ada") == 10
            assert await registry["raw"].expires_in("k") == -1
            with pytest.raises(storeconf.StoreValueError, match="2000 bytes") as caught:
                await sessions.set("grace", b"x" * 2000)
            assert (caught.value.store, caught.value.operation) == ("sessions", "set")
            await registry["rate_limit"].delete_all()
            assert await pages.get("/") is None
            assert await sessions.get("ada") is not None
            await registry["kept"].set("k", "for ever")
            assert all(result.ok for result in (await registry.ping()).values())
        with pytest.raises(StoreClosedError):
            await pages.get("/")
        async with load(file, "strict") as registry:
            assert await registry["kept"].get("k") == b"for ever"
            assert await registry["main"].get("k") is None

    asyncio.run(main())
    assert (file.parent / "var" / "kept").is_dir()


def test_compiling_touches_nothing(file: Path) -> None:
    registry = load(file, "plain")
    registry.get("unlisted")
    assert not (file.parent / "var").exists()


def test_the_default_factories_of_the_environments(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        with caplog.at_level(logging.WARNING, "storeconf"):
            base = load(file)
        assert "environment" in caplog.text
        async with base:
            made = base.get("made")
            assert made.namespaces == ("shop", "cache", "made")
            await made.set("k", "v")
            assert await made.expires_in("k") == 3600
            with pytest.raises(ValueError, match="'pages'"):
                base.get("html")
        with pytest.raises(UnknownStoreError, match="did you mean 'sessions'"):
            load(file, "strict").get("sesions")
        plain = load(file, "plain")
        assert plain.get("html").namespaces == ("html",)
        assert plain.get("html").root is not plain["main"].root

    asyncio.run(main())


def test_overrides_and_variables_reach_the_registry(file: Path) -> None:
    registry = storeconf.load(
        file,
        environment="plain",
        overrides={"stores.sessions.namespace": "logins"},
        environ={"STORECONF__STORES__PAGES__NAMESPACE": "markup"},
    )
    assert registry["sessions"].namespaces == ("shop", "logins")
    assert registry["pages"].namespaces == ("shop", "cache", "markup")


def test_a_mapping_is_a_source_and_problems_raise() -> None:
    registry = storeconf.load({"stores": {"a": {"type": "memory"}, "b": {"use": "a"}}}, environ={})
    assert registry["a"] is registry["b"]
    with pytest.raises(ConfigError, match="'nowhere'") as caught:
        storeconf.load({"stores": {"a": {"parent": "nowhere"}}}, environ={})
    assert caught.value.diagnostics[0].path == "stores.a.parent"


def test_two_registries_of_one_layout_share_nothing(file: Path) -> None:
    async def main() -> None:
        layout = storeconf.read_layout(file, environment="plain", environ={})
        async with layout.compile() as one, layout.compile() as other:
            await one["main"].set("k", "v")
            assert await other["main"].get("k") is None

    asyncio.run(main())


def test_the_shop_runs_in_development(tmp_path: Path) -> None:
    (tmp_path / "storeconf.yaml").write_text(SHOP.read_text())
    registry = load(tmp_path / "storeconf.yaml", "development")

    async def main() -> None:
        async with registry:
            for name in registry:
                await registry[name].set("k", name)
            assert await registry["response_cache"].get("k") == b"response_cache"
            assert await registry["pages"].get("k") == b"response_cache"
            assert await registry.get("made").get("k") is None
            await registry.delete_expired()

    asyncio.run(main())
