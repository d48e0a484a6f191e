"""copy: everything arrives as it was, failures are reported, and a copy that ended early is continued."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.running import process, run
from tests.servers import Server, shared, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from storeconf import Store

from tests.cli.moving import MANY, below, content, ends, fields, fill, fill_many, layout, on, servers, size, start

pytestmark = pytest.mark.usefixtures("layout")

__all__ = ["layout"]


# ---------------------------------------------------------------------- copy


def test_a_store_is_copied_with_all_that_lies_below_it() -> None:
    fill("old", {"k": "v", "": "empty", "a::b": "colons", "größe\n": b"\x00\xff"})
    fill("pages", {"k": "page"})
    fill("letters", {"k": "letter"})
    fill("old", {"k": "deep"}, None, "unlisted", "deeper")
    done = run("copy", "old", "new")
    assert (done.status, done.out) == (0, "")
    assert done.err == "production: copied 7 keys from 'old' to 'new'\n"
    assert content("new") == {"k": b"v", "": b"empty", "a::b": b"colons", "größe\n": b"\x00\xff"}
    assert content("new_pages") == {"k": b"page"}
    assert content("new_letters") == {"k": b"letter"}
    # What nobody lists gets the chain of the default factory there.
    assert content("unlisted", "deeper") == {"k": b"deep"}
    assert content("new", "unlisted", "deeper")["k"].startswith(b"\x93SCe")
    assert content("old", "unlisted") == {}


def test_values_are_kept_as_the_target_says(directory: Path) -> None:
    fill("letters", {"k": "secret" * 100})
    run("copy", "letters", "new_letters")
    (directory / "plain.yaml").write_text(
        "{stores: {new: {type: file, path: var/new}}, environments: {production: {}}}"
    )
    raw = content("new", "pages", "letters", layout="plain.yaml", env=None)["k"]
    assert b"secret" not in raw
    assert run("get", "new_letters", "k").raw == b"secret" * 100


def test_expiry_is_kept_whatever_ttl_says() -> None:
    expiries = {"long": 5000.123, "brief": 1000.456, "for ages": 10**8, "forever": None}  # max is 2h
    for key, expiry in expiries.items():
        fill("straight", {key: "v"}, expiry, "pages")
    assert run("copy", "straight", "new").status == 0
    for key in ("long", "brief", "for ages"):
        before, after = ends("straight", key, "pages"), ends("new_pages", key)
        assert before is not None
        assert after is not None
        assert abs(after - before) < 500
    assert ends("new_pages", "forever") is None


def test_an_expiry_is_exact_to_the_millisecond(directory: Path) -> None:
    fill("old", {f"k{n}": "v" for n in range(50)}, 3600)
    run("copy", "old", "new")
    gaps = []
    for path in (directory / "var/old").rglob("*.kv"):
        twin = directory / "var/new" / path.name
        gaps.append(expiry_of(twin) - expiry_of(path))
    assert len(gaps) == 50
    assert min(map(abs, gaps)) <= 20  # however busy the machine is, some are read and written without delay
    assert max(map(abs, gaps)) < 500


def expiry_of(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[16:24], "little")


def test_what_is_there_stays_unless_it_may_be_replaced() -> None:
    fill("old", {"a": "1", "b": "2", "c": "3"})
    fill("new", {"b": "mine"}, 100)
    done = run("copy", "old", "new", "--dry-run")
    assert done.err == "production: would copy 2 keys from 'old' to 'new', skip 1 existing\n"
    assert content("new") == {"b": b"mine"}
    done = run("copy", "old", "new")
    assert (done.status, done.err) == (0, "production: copied 2 keys from 'old' to 'new', skipped 1 existing\n")
    assert content("new") == {"a": b"1", "b": b"mine", "c": b"3"}
    assert run("copy", "old", "new").err == "production: copied 0 keys from 'old' to 'new', skipped 3 existing\n"
    assert run("copy", "old", "new", "--dry-run", "--overwrite").err.startswith("production: would copy 3 keys")
    done = run("copy", "old", "new", "--overwrite")
    assert (done.status, done.err) == (0, "production: copied 3 keys from 'old' to 'new'\n")
    assert content("new") == {"a": b"1", "b": b"2", "c": b"3"}
    assert ends("new", "b") is None


def test_a_dry_run_writes_nothing_at_all(directory: Path) -> None:
    fill("old", {"a": "1"})
    assert run("copy", "old", "other:new", "--dry-run").status == 0
    assert list((directory / "var").rglob("*.kv")) == list((directory / "var/old").rglob("*.kv"))


def test_stores_of_two_environments() -> None:
    fill("old", {"a": "1"})
    done = run("copy", "old", "other:old")
    assert (done.status, done.out) == (0, "")
    assert done.err == "production → other: copied 1 key from 'production:old' to 'other:old'\n"
    assert content("old", env="other") == {"a": b"1"}
    done = run("copy", "other:old", "other:new", "--format", "json")
    assert done.json["environment"] == "other"
    assert fields(done) == {
        "from": {"environment": "other", "store": "old"},
        "to": {"environment": "other", "store": "new"},
        "dry_run": False,
        "complete": True,
        "copied": 1,
        "existing": 0,
        "expired": 0,
        "failed": 0,
        "failures": [],
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("old", "old"),
        ("pages", "again"),
        ("old", "letters"),
        ("letters", "old"),
        ("production:old", "twin:pages"),
        ("old", "twin:old"),
    ],
)
def test_a_store_is_not_copied_into_itself(one: str, other: str) -> None:
    fill("old", {"a": "1"})
    for pair in ((one, other), (other, one)):
        done = run("copy", *pair)
        assert done.status == 1
        assert "source and destination overlap" in done.err
    assert content("old") == {"a": b"1"}


@pytest.mark.parametrize("odd", [":old", "old:", "other:no", "no:old", "a:b:c"])
def test_ends_that_are_not_there(odd: str) -> None:
    assert run("copy", odd, "new").status in (1, 2)
    assert run("copy", "new", odd).status in (1, 2)


def test_of_an_empty_store_nothing_is_copied() -> None:
    assert run("copy", "old", "new").err == "production: copied 0 keys from 'old' to 'new'\n"


# ---------------------------------------------------------------------- what goes wrong


def test_what_a_limit_refuses_is_told_key_by_key() -> None:
    fill("old", {"fits": "four", "large": "fives", "huge\n": "v" * 1000})
    done = run("copy", "old", "small")
    assert done.status == 1
    assert sorted(done.err.splitlines()) == [
        "production: copied 1 key from 'old' to 'small', 2 failed",
        "production: error: 'huge\\n' in 'old': add on 'small': the value has 1000 bytes, 'small' takes 4",
        "production: error: 'large' in 'old': add on 'small': the value has 5 bytes, 'small' takes 4",
    ]
    done = run("copy", "old", "small", "--format", "json")
    assert done.status == 1
    told = fields(done)
    assert (told["copied"], told["existing"], told["failed"], told["complete"]) == (0, 1, 2, True)
    assert {"namespaces": [], "key": "large", "error": "add on 'small': the value has 5 bytes, 'small' takes 4"} in (
        told["failures"]
    )


def test_many_failures_are_not_all_told() -> None:
    fill("old", {f"k{n}": "fives" for n in range(500)})
    done = run("copy", "old", "small")
    assert done.status == 1
    assert done.err.count("the value has 5 bytes") == 20
    assert done.err.endswith(
        "production: error: 480 more failed\nproduction: copied 0 keys from 'old' to 'small', 500 failed\n"
    )


def test_a_target_that_is_read_only_ends_the_copy() -> None:
    fill("old", {f"k{n}": "v" for n in range(50)})
    done = run("copy", "old", "guarded")
    assert done.status == 1
    assert "production: error: add on 'guarded': store 'guarded' is read-only here\n" in done.err
    assert "copied 0 keys from 'old' to 'guarded'; it ended early" in done.err
    assert run("copy", "guarded", "old").status == 0


def test_values_that_can_not_be_read_are_told() -> None:
    fill("letters", {"good": "v"})
    plain = ("--set", "stores.letters.middleware.encrypt=false")
    assert run("set", "letters", "plain", "v", *plain).status == 0
    done = run("copy", "letters", "new")
    assert done.status == 1
    assert done.err == (
        "production: error: 'plain' in 'letters': the value can't be read: it was not encrypted (accept_plain: true "
        "would read it)\nproduction: copied 1 key from 'letters' to 'new', 1 failed\n"
    )
    done = run("copy", "letters", "other:new", "--set", "stores.letters.middleware.encrypt=another of the keys")
    assert done.status == 1
    assert "'good' in 'production:letters': " in done.err
    assert "is encrypted with a key that is not among the configured ones" in done.err


def test_damaged_files_are_told(directory: Path) -> None:
    fill("old", {"large": b"v" * 50_000, "small": b"v", "whole": b"v"})
    paths = [directory / run("raw-key", "old", key).out.strip() for key in ("large", "small")]
    for path in paths:
        damaged = bytearray(path.read_bytes())
        damaged[-1] ^= 1
        path.write_bytes(damaged)
    for arguments in (("copy", "old", "new"), ("dump", "old", "dump.jsonl")):
        done = run(*arguments)
        assert done.status == 1
        assert sorted(done.err.splitlines()[:2]) == sorted(f"production: error: {path} is damaged" for path in paths)
        assert done.err.splitlines()[2].endswith(", 2 failed")
        assert len(done.err.splitlines()) == 3
    assert content("new") == {"whole": b"v"}


def test_an_outage_is_no_empty_store() -> None:
    fill("old", {"a": "1"})
    values = ("type=redis", "url=redis://127.0.0.1:1", "path=null", "namespace=n")
    down = [word for value in values for word in ("--set", f"stores.new.{value}")]
    for pair in (("old", "hasty"), ("hasty", "pages")):
        done = run("copy", *pair, *down)
        assert done.status == 1
        assert "can't connect to 127.0.0.1:1" in done.err
        assert "copied 0 keys" in done.err
        assert "it ended early" in done.err
    done = run("dump", "hasty", "dump.jsonl", *down)
    assert done.status == 1
    assert not os.path.exists("dump.jsonl")


# ---------------------------------------------------------------------- servers


def test_from_redis_to_valkey_and_to_files() -> None:
    redis, valkey = shared("redis-8.2"), shared()
    name = servers(redis, valkey, "  kept: {type: file, path: var/kept}\n")
    redis.ask(
        "EVAL", f"for i = 1, 3000 do redis.call('SET', '{name}o:a:b-' .. i % 7 .. '::k' .. i, i, 'PX', 10^9 + i) end", 0
    )
    redis.ask("MSET", f"{name}o::k", "v", f"{name}o2::k", "another's", f"{name}o:orders:17", "foreign")
    done = run("copy", "old", "new", "-f", "servers.yaml")
    assert (done.status, done.err) == (0, "production: copied 3,001 keys from 'old' to 'new'\n")
    for n in (1, 1500, 3000):
        key = f"a:b-{n % 7}::k{n}"
        assert valkey.ask("GET", f"{name}n:{key}") == b"$%d\r\n%d\r\n" % (len(str(n)), n)
        before = int(redis.ask("PEXPIRETIME", f"{name}o:{key}")[1:])
        after = int(valkey.ask("PEXPIRETIME", f"{name}n:{key}")[1:])
        assert -2000 < after - before < 50
    assert valkey.ask("PTTL", f"{name}n::k") == b":-1\r\n"
    done = run("copy", "new", "kept", "-f", "servers.yaml")
    assert done.err == "production: copied 3,001 keys from 'new' to 'kept'\n"
    run("clear", "new", "--yes", "-f", "servers.yaml")
    assert run("copy", "kept", "new", "-f", "servers.yaml").status == 0
    assert valkey.ask("GET", f"{name}n:a:b-1::k1") == b"$1\r\n1\r\n"


def test_from_litestars_keys_to_ours_on_one_server() -> None:
    server = shared()
    name = servers(
        server,
        server,
        f"  theirs: {{type: valkey, url: '{server.url}', namespace: LNAME, key_layout: litestar}}\n"
        "  mine: {parent: theirs, namespace: a}\n"
        "  mine_too: {parent: mine, namespace: b}\n",
    )
    server.ask("MSET", f"L{name}:k", "root", f"L{name}_response_cache:/x:y", "page", f"L{name}_a_b:k", "listed")
    server.ask("SET", f"L{name}2:k", "another's")
    done = run("copy", "theirs", "new", "-f", "servers.yaml")
    assert done.status == 0
    assert done.err.endswith("copied 3 keys from 'theirs' to 'new'\n")
    assert server.ask("GET", f"{name}n::k") == b"$4\r\nroot\r\n"
    # Names that hold an underscore are one, unless the layout lists it otherwise.
    assert server.ask("GET", f"{name}n:response_cache::/x:y") == b"$4\r\npage\r\n"
    assert server.ask("GET", f"{name}n:a:b::k") == b"$6\r\nlisted\r\n"


def test_a_key_that_holds_no_string_is_told() -> None:
    server = shared()
    name = servers(server, server)
    server.ask("SET", f"{name}o::good", "v")
    server.ask("LPUSH", f"{name}o::list", "v")
    done = run("copy", "old", "new", "-f", "servers.yaml")
    assert done.status == 1
    assert "'list' in 'old': get on 'old': the key holds a non-string value" in done.err
    assert "copied 1 key from 'old' to 'new', 1 failed" in done.err


def test_the_server_that_is_full_ends_the_copy_early() -> None:
    with Server(maxmemory="3mb") as full:
        name = servers(shared(), full)
        shared().ask("EVAL", f"for i = 1, 2000 do redis.call('SET', '{name}o::' .. i, string.rep('v', 5000)) end", 0)
        done = run("copy", "old", "new", "-f", "servers.yaml")
        assert done.status == 1
        assert "OOM" in done.err or "maxmemory" in done.err
        assert "it ended early" in done.err
        assert len(done.err.splitlines()) < 30


@pytest.mark.slow
def test_a_server_that_is_killed_in_the_middle(directory: Path) -> None:
    old = shared()
    with Server() as new:
        name = servers(old, new)
        fill_many(old, name)
        with start("copy", "old", "new", "-f", "servers.yaml", cwd=directory) as child:
            wait_for(lambda: size(new) > 1000, "some keys")
            new.freeze()
            there = child.poll() is None
            new.stop()
            assert there, "it was over before the server was"
            assert child.stderr is not None
            told = child.stderr.read().decode()
            assert child.wait(60) == 1
        assert "error: add on 'new/x': " in told
        assert "it ended early: started again, it continues" in told
        arrived = int(told.split("copied ")[1].split(" ")[0].replace(",", ""))
        assert 1000 <= arrived < MANY
        new.start()
        new.ask("EVAL", f"for i = 1, 5000 do redis.call('SET', '{name}n:x::k' .. i, string.rep('v', 100)) end", 0)
        done = run("copy", "old", "new", "-f", "servers.yaml", "--format", "json")
        told_fields = fields(done)
        assert (done.status, told_fields["copied"], told_fields["existing"]) == (0, MANY - 5000, 5000)
        assert size(new) == MANY


@pytest.mark.slow
def test_an_interruption_in_the_middle(directory: Path) -> None:
    old = shared()
    with Server() as new:
        name = servers(old, new)
        fill_many(old, name)
        for form in ("text", "json"):
            reached = size(new) + 1000
            with start(
                "copy", "old", "new", "-f", "servers.yaml", "--format", form, cwd=directory, stdout=subprocess.PIPE
            ) as child:
                wait_for(lambda reached=reached: size(new) > reached, "some keys")
                child.send_signal(signal.SIGINT)
                out, err = child.communicate(timeout=60)
                assert child.returncode == 130
            if form == "text":
                assert "copied " in err.decode()
                assert "it ended early: started again, it continues" in err.decode()
                assert b"Traceback" not in err
            else:
                assert json.loads(out)["copy"]["complete"] is False
                assert err == b""
        arrived = size(new)
        assert arrived < MANY
        done = run("copy", "old", "new", "-f", "servers.yaml", "--format", "json")
        assert (fields(done)["copied"], fields(done)["existing"]) == (MANY - arrived, arrived)
        assert size(new) == MANY


@pytest.mark.slow
def test_a_server_that_is_stuck_ends_the_copy(directory: Path) -> None:
    old = shared()
    with Server() as new:
        name = servers(old, new, timeout="0.3s")
        fill_many(old, name)
        with start("copy", "old", "new", "-f", "servers.yaml", cwd=directory) as child:
            wait_for(lambda: size(new) > 1000, "some keys")
            new.freeze()
            try:
                assert child.stderr is not None
                told = child.stderr.read().decode()
                assert child.wait(60) == 1
            finally:
                new.thaw()
        assert "it ended early" in told
        done = run("copy", "old", "new", "-f", "servers.yaml")
        assert done.status == 0
        assert size(new) == MANY


# ---------------------------------------------------------------------- plugins

PLUGIN = """
from typing import ClassVar, Literal

from storeconf import Backend, Capabilities, ConfigPath, FileStore, Middleware, StoreBase, StoreWrapper


class SimpleStore(FileStore):  # has nothing that is optional
    capabilities = Capabilities(persistent=True, shared=True)
    do_walk = StoreBase.do_walk


class Simple(Backend):
    capabilities = SimpleStore.capabilities
    type: Literal["simple"] = "simple"
    path: ConfigPath

    def build(self, context):
        return SimpleStore(self.path, create_directories=True)


class ReversedStore(StoreWrapper):  # calls keys otherwise than its callers do
    async def keys(self, prefix=""):
        async for key in self.wrapped.keys():
            yield key[::-1]

    async def get_with_expiry(self, key):
        return await self.wrapped.get_with_expiry(key[::-1])

    async def set(self, key, value, expires_in=None, *, keep_ttl=False):
        await self.wrapped.set(key[::-1], value, expires_in, keep_ttl=keep_ttl)


class Reversed(Middleware):
    kind: ClassVar[str] = "reversed"

    def wrap(self, inner, context):
        return ReversedStore(inner)
"""

WITH_PLUGINS = """
stores:
  simple: {type: simple, path: var/simple}
  listed: {parent: simple}
  full: {type: file, path: var/full}
  backwards: {parent: full, middleware: {reversed: {}}}
"""


@pytest.fixture
def plugins(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """The variables with which commands find the plugins."""
    place = directory / "plugins"
    (place / "moved-1.0.dist-info").mkdir(parents=True)
    (place / "moved_plugin.py").write_text(PLUGIN)
    (place / "moved-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: moved\nVersion: 1.0\n")
    (place / "moved-1.0.dist-info/entry_points.txt").write_text(
        "[storeconf.backends]\nsimple = moved_plugin:Simple\n[storeconf.middleware]\nreversed = moved_plugin:Reversed\n"
    )
    (directory / "storeconf.yaml").write_text(WITH_PLUGINS)
    (directory / "as-files.yaml").write_text("stores: {simple: {type: file, path: var/simple}}")
    monkeypatch.delenv("STORECONF_ENV")
    return {"PYTHONPATH": os.pathsep.join([str(place), *filter(None, sys.path)])}


def test_where_namespaces_can_not_be_listed_it_is_said(directory: Path, plugins: Mapping[str, str]) -> None:
    async def work(store: Store) -> None:
        for names in ((), ("listed",), ("unlisted",)):
            await below(store, names).set("k", b"v", 1000)

    on("simple", work, "as-files.yaml")
    for arguments in (("copy", "simple", "full"), ("dump", "simple", "dump.jsonl")):
        done = process(*arguments, cwd=directory, environ=plugins)
        assert done.status == 0
        assert "2 keys" in done.err
        assert done.err.endswith(
            "warning: 'simple' can't list its namespaces: of those below it, only the ones in the layout were included "
            "(simple/listed)\n"
        )
    # Such a store has no add either: what is there stays all the same.
    for arguments in (("copy", "full", "simple"), ("restore", "simple", "dump.jsonl")):
        done = process(*arguments, "--format", "json", cwd=directory, environ=plugins)
        told = fields(done, arguments[0])
        assert (done.status, told["copied"], told["existing"]) == (0, 0, 2)
    assert process("clear", "simple", "--yes", cwd=directory, environ=plugins).status == 0
    assert process("copy", "full", "simple", cwd=directory, environ=plugins).status == 0
    assert process("get", "listed", "k", cwd=directory, environ=plugins).raw == b"v"


def test_keys_are_those_that_applications_use(directory: Path, plugins: Mapping[str, str]) -> None:
    for key in ("abc", "xyz"):
        assert process("set", "backwards", key, key, cwd=directory, environ=plugins).status == 0
    done = process("copy", "full", "simple", cwd=directory, environ=plugins)
    assert (done.status, done.err) == (0, "no environment: copied 2 keys from 'full' to 'simple'\n")
    assert content("simple", "backwards", layout="as-files.yaml") == {"abc": b"abc", "xyz": b"xyz"}
