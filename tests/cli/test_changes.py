"""`storeconf changes`: each verdict is compared with what happens to data written under the old layout."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

import storeconf
from tests.cli.running import run
from tests.servers import shared

if TYPE_CHECKING:
    from pathlib import Path

FILE = {"type": "file", "path": "data"}
KEY, OTHER = "k" * 40, "o" * 40


def server(namespace: str = "changes", **more: Any) -> dict[str, Any]:
    return {"type": "valkey", "url": f"valkey://{shared().address}", "namespace": namespace, **more}


def child(**middleware: Any) -> dict[str, Any]:
    return {"main": FILE, "s": {"parent": "main", "middleware": middleware}}


def moving(namespace: str, store: str = "before", **more: Any) -> dict[str, Any]:
    """A server root that takes entries from another store."""
    return server(namespace) | {"middleware": {"moved_from": {"store": store, **more}}}


PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "the same": ({"s": FILE}, {"s": FILE}, "kept"),
    "another description": ({"s": FILE}, {"s": FILE | {"description": "x"}}, "kept"),
    "another durability": ({"s": FILE}, {"s": FILE | {"durability": "fsync"}}, "kept"),
    "another directory": ({"s": FILE}, {"s": FILE | {"path": "other"}}, "left behind"),
    "the same directory in other words": ({"s": FILE}, {"s": FILE | {"path": "./x/../data"}}, "kept"),
    "a namespace for a file root": ({"s": FILE}, {"s": FILE | {"namespace": "n"}}, "left behind"),
    "a child": ({"s": FILE}, {"main": FILE, "s": {"parent": "main"}}, "left behind"),
    "a child of the same name": (child(), child(ttl=60), "kept"),
    "a child with another namespace": (
        child(),
        {"main": FILE, "s": {"parent": "main", "namespace": "t"}},
        "left behind",
    ),
    "a child with the name of before as namespace": (
        child(),
        {"main": FILE, "s": {"parent": "main", "namespace": "s"}},
        "kept",
    ),
    "a root in place of a child": (child(), {"s": FILE | {"namespace": "s"}}, "kept"),
    "a child of a child": (
        child(),
        {"main": FILE, "m": {"parent": "main"}, "s": {"parent": "m"}},
        "left behind",
    ),
    "an alias": (child(), {"main": FILE, "t": {"parent": "main", "namespace": "s"}, "s": {"use": "t"}}, "kept"),
    "an alias of another": (child(), {"main": FILE, "s": {"use": "main"}}, "left behind"),
    "only the default factory": (child(), {"main": FILE, "": {"parent": "main"}}, "kept"),
    "another default factory": (child(), {"main": FILE, "": {"type": "file", "path": "hidden"}}, "left behind"),
    "no store of that name": (child(), {"main": FILE}, "left behind"),
    "listed where the default factory had it": ({"main": FILE, "": {"parent": "main"}}, child(), "kept"),
    "listed elsewhere than the default factory had it": (
        {"main": FILE, "": {"parent": "main"}},
        {"main": FILE, "s": {"parent": "main", "namespace": "t"}, "": {"parent": "main"}},
        "unknown",
    ),
    "listed, but no longer the store that the default factory uses": (
        {"main": FILE, "": {"use": "main"}},
        {"main": FILE, "s": {"type": "file", "path": "other"}, "": {"use": "main"}},
        "unknown",
    ),
    "listed, and encrypted from now on": ({"main": FILE, "": {"parent": "main"}}, child(encrypt=KEY), "unknown"),
    "file to server": ({"s": FILE}, {"s": server()}, "left behind"),
    "server to file": ({"s": server()}, {"s": FILE}, "left behind"),
    "server to memory": ({"s": server()}, {"s": {"type": "memory"}}, "left behind"),
    "the same server": ({"s": server()}, {"s": server(command_timeout="3s")}, "kept"),
    "the other client": ({"s": server()}, {"s": server() | {"type": "redis"}}, "kept"),
    "another database": ({"s": server()}, {"s": server(db=1)}, "left behind"),
    "another namespace": ({"s": server()}, {"s": server("others")}, "left behind"),
    "another key layout": ({"s": server()}, {"s": server(key_layout="litestar")}, "left behind"),
    "a namespace that is a child's": (
        {"main": server(), "s": {"parent": "main"}},
        {"main": server(), "s": {"parent": "main", "middleware": {"cache": "1s"}}},
        "kept",
    ),
    "encrypt": (child(), child(encrypt=KEY), "unreadable"),
    "encrypt that accepts plain values": (child(), child(encrypt={"keys": KEY, "accept_plain": True}), "kept"),
    "encrypt no longer": (child(encrypt=KEY), child(), "unreadable"),
    "a new key in front": (child(encrypt=KEY), child(encrypt={"keys": [OTHER, KEY]}), "kept"),
    "a new key alone": (child(encrypt=KEY), child(encrypt=OTHER), "unreadable"),
    "an old key gone": (child(encrypt={"keys": [KEY, OTHER]}), child(encrypt=KEY), "unknown"),
    "compress": (child(), child(compress="gzip"), "unreadable"),
    "compress that accepts plain values": (child(), child(compress={"accept_plain": True}), "kept"),
    "compress no longer": (child(compress={"min_size": 0}), child(), "unreadable"),
    "a chain that is inherited": (
        {"main": FILE | {"middleware": {"encrypt": KEY}}, "s": {"parent": "main"}},
        child(encrypt=KEY),
        "kept",
    ),
    "an inherited chain switched off": (
        {"main": FILE | {"middleware": {"encrypt": KEY}}, "s": {"parent": "main"}},
        {"main": FILE | {"middleware": {"encrypt": KEY}}, "s": {"parent": "main", "middleware": {"encrypt": False}}},
        "unreadable",
    ),
    "a smaller limit": (child(), child(limit={"value_size": 3}), "unknown"),
    "moved from a file to a server": ({"s": FILE}, {"before": FILE, "s": moving("to-server")}, "moved"),
    "a move that is only prepared": (
        {"s": FILE},
        {"before": FILE, "s": moving("prepared", store="before", prepare=True)},
        "moved",
    ),
    "moved from a child": (
        child(),
        {"main": FILE, "before": {"parent": "main", "namespace": "s"}, "s": moving("from-child")},
        "moved",
    ),
    "moved by the chain of the root": (
        child(),
        {"before": FILE, "main": moving("by-root"), "s": {"parent": "main"}},
        "moved",
    ),
    "moved with another chain above": (
        {"main": FILE, "s": {"parent": "main", "middleware": {"ttl": 60}}},
        {"before": FILE, "main": moving("chain"), "s": {"parent": "main", "middleware": {"ttl": 90}}},
        "moved",
    ),
    "moved from another store": (
        {"s": FILE},
        {"before": FILE | {"path": "other"}, "s": moving("another")},
        "left behind",
    ),
    "moved from the namespace above": (child(), {"before": FILE, "s": moving("above")}, "left behind"),
    "moved, but encrypted from now on": (
        {"s": FILE},
        {"before": FILE, "s": server("encrypted") | {"middleware": {"moved_from": "before", "encrypt": KEY}}},
        "moved",
    ),
    "mirrored": (
        {"s": server("mirrored")},
        {"other": FILE, "s": server("mirrored", middleware={"mirror": {"store": "other", "percent": 100}})},
        "kept",
    ),
    "the mirror becomes the store": (
        {"other": server("trial"), "s": FILE | {"middleware": {"mirror": "other"}}},
        {"s": server("trial")},
        "unknown",
    ),
    "the mirror becomes the root": (
        {"other": server("trial-root"), "main": FILE | {"middleware": {"mirror": "other"}}, "s": {"parent": "main"}},
        {"main": server("trial-root"), "s": {"parent": "main"}},
        "unknown",
    ),
    "the mirror becomes the root of another namespace": (
        {"other": server("trial-n"), "main": FILE | {"middleware": {"mirror": "other"}}, "s": {"parent": "main"}},
        {"main": server("trial-n"), "s": {"parent": "main", "namespace": "t"}},
        "left behind",
    ),
    "a mirror of the default factory's stores becomes the store": (
        {"other": server("trial-all"), "": FILE | {"middleware": {"mirror": "other"}}},
        {"": server("trial-all")},
        "unknown",
    ),
    "the mirror becomes the store, with encryption of its own": (
        {
            "other": server("trial-key", middleware={"encrypt": OTHER}),
            "s": FILE | {"middleware": {"mirror": "other", "encrypt": KEY}},
        },
        {"s": server("trial-key", middleware={"encrypt": OTHER})},
        "unknown",
    ),
    "the mirror becomes the store without its encryption": (
        {
            "other": server("trial-plain", middleware={"encrypt": OTHER}),
            "s": FILE | {"middleware": {"mirror": "other"}},
        },
        {"s": server("trial-plain")},
        "unreadable",
    ),
    "the mirror of a share becomes the store": (
        {"other": server("trial-share"), "s": FILE | {"middleware": {"mirror": {"store": "other", "percent": 0.1}}}},
        {"s": server("trial-share")},
        "left behind",
    ),
    "moved with its encryption": (
        {"s": FILE | {"middleware": {"encrypt": KEY}}},
        {
            "before": FILE | {"middleware": {"encrypt": KEY}},
            "s": server("with-keys") | {"middleware": {"moved_from": "before", "encrypt": OTHER}},
        },
        "moved",
    ),
}


def write(path: Path, stores: dict[str, Any]) -> str:
    factory = {"default_factory": stores[""]} if "" in stores else {}
    layout = {"stores": {name: store for name, store in stores.items() if name}, **factory}
    path.write_text(json.dumps(layout))
    return str(path)


async def stored(path: str, value: bytes | None) -> bytes | None:
    """Store a value in ``s`` under a layout, or read it."""
    registry = storeconf.load(path, environ={})
    async with registry:
        if value is not None:
            await registry.get("s").set("k", value)
        try:
            return await registry.get("s").get("k")
        except storeconf.StoreError:
            return None


@pytest.mark.parametrize("case", PAIRS)
def test_a_verdict_is_what_happens(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before, after, effect = PAIRS[case]
    old, new = write(tmp_path / "old.yaml", before), write(tmp_path / "new.yaml", after)
    value = case.encode() * 20
    assert asyncio.run(stored(old, value)) == value
    found = asyncio.run(stored(new, None))
    assert (found == value) == (effect in ("kept", "moved")) or effect == "unknown"
    if "mirror" in case and effect == "unknown":
        assert found == value
    done = run("changes", old, new, "--format", "json")
    verdicts = {each["store"]: each for each in done.json["changes"]}
    verdict = verdicts.get("s") or verdicts["*"]
    assert verdict["effect"] == effect, verdict
    assert done.json["format"] == 1
    if effect == "kept":
        assert verdict["remedy"] is None
    others = {each["effect"] for each in done.json["changes"]}
    assert done.status == (0 if others <= {"kept", "moved", "new"} else 1)
    text = run("changes", old, new)
    assert effect in text.out
    assert text.status == done.status


def test_what_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = {"type": "redis", "url": "redis://one:6379", "namespace": "n"}
    pairs: list[tuple[Any, Any, str]] = [
        (known, known | {"url": "redis://two:6379"}, "unknown"),
        (known, known | {"url": "redis://user:pw@one:6379"}, "kept"),
        (known, known | {"url": "${REDIS_URL}"}, "unknown"),
        (known | {"url": "${REDIS_URL}"}, known | {"url": "${REDIS_URL}", "password": "${PW}"}, "kept"),
        (known | {"namespace": "${N}"}, known | {"namespace": "${N}"}, "kept"),
        (known | {"namespace": "${N}"}, known, "unknown"),
        (FILE | {"path": "${P}/x"}, FILE | {"path": "${Q}/x"}, "unknown"),
        (
            known | {"middleware": {"encrypt": "${file:missing}"}},
            known | {"middleware": {"encrypt": "${file:missing}"}},
            "kept",
        ),
        (
            known | {"middleware": {"encrypt": "${file:missing}"}},
            known | {"middleware": {"encrypt": "${file:absent}"}},
            "unknown",
        ),
    ]
    for before, after, effect in pairs:
        old, new = write(tmp_path / "old.yaml", {"s": before}), write(tmp_path / "new.yaml", {"s": after})
        done = run("changes", old, new, "--format", "json")
        assert [each["effect"] for each in done.json["changes"]] == [effect], (before, after, done.both)
        assert done.status == (0 if effect == "kept" else 1)


def test_the_store_that_was_moved_from_is_removed_once_nothing_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    s = FILE | {"path": "x"}
    old = write(tmp_path / "old.yaml", {"before": FILE, "s": s | {"middleware": {"moved_from": "before"}}})
    new = write(tmp_path / "new.yaml", {"s": s})
    done = run("changes", old, new, "--format", "json")
    before, after = done.json["changes"]
    assert (after["effect"], before["effect"], done.status) == ("kept", "unknown", 1)
    assert "storeconf move s" in before["remedy"]


def test_new_is_found_where_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "storeconf.yaml", {"s": FILE, "t": {"type": "memory"}})
    old = write(tmp_path / "old.yaml", {"s": FILE})
    done = run("changes", old)
    assert done.status == 0, done.both
    assert "new" in done.out
    assert run("changes").status == 2
    assert run("changes", old, "storeconf.yaml", "-f", "storeconf.yaml").status == 2


def test_a_store_with_another_name_keeps_its_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    old, new = write(tmp_path / "old.yaml", {"a": FILE}), write(tmp_path / "new.yaml", {"b": FILE})
    done = run("changes", old, new)
    assert done.status == 0
    assert "'b'" in done.out
