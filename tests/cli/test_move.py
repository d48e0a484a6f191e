"""copy, dump and restore: everything arrives as it was, what did not is told, and what ended early is continued."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import storeconf
from tests.cli.running import INTERRUPTIBLE, ROOT_COMMAND, Done, environment, on_terminal, process, run
from tests.servers import Server, shared, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from storeconf import Store

LAYOUT = """
stores:
  old: {type: file, path: var/old}
  pages: {parent: old, middleware: {ttl: {default: 1h, max: 2h}, compress: gzip}}
  letters: {parent: pages, middleware: {encrypt: one}}
  new: {type: file, path: var/new}
  straight: {type: file, path: var/straight}
  new_pages: {parent: new, namespace: pages, middleware: {ttl: 5s, compress: {algorithm: gzip, min_size: 1}}}
  new_letters: {parent: new_pages, namespace: letters, middleware: {encrypt: two}}
  again: {use: pages}
  guarded: {parent: new, middleware: {read_only: {}}}
  small: {parent: new, middleware: {limit: {value_size: 4}}}
  hasty: {parent: new, middleware: {on_error: miss, fallback: old}}
environments:
  production: {default_factory: {parent: new, middleware: {encrypt: three}}}
  other: {stores: {old: {path: var/other}, new: {path: var/other_new}}}
  twin: {}
"""

Entries = dict[tuple[tuple[str, ...], str], tuple[bytes, int | None]]


@pytest.fixture(autouse=True)
def _layout(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "storeconf.yaml").write_text(LAYOUT)
    monkeypatch.setenv("STORECONF_ENV", "production")


def on(name: str, work: Callable[[Store], Any], layout: str = "storeconf.yaml", env: str | None = None) -> Any:
    """Do something with a store as an application would."""

    async def main() -> Any:
        async with storeconf.load(layout, environment=env) as registry:
            return await work(registry.get(name))

    return asyncio.run(main())


def below(store: Store, names: tuple[str, ...]) -> Store:
    for name in names:
        store = store.with_namespace(name)
    return store


def fill(name: str, entries: Mapping[str, str | bytes], expires_in: float | None = None, *names: str) -> None:
    async def work(store: Store) -> None:
        await below(store, names).set_many(entries, expires_in)

    on(name, work)


def content(name: str, *names: str, layout: str = "storeconf.yaml", env: str | None = None) -> dict[str, bytes]:
    async def work(store: Store) -> dict[str, bytes]:
        place = below(store, names)
        return await place.get_many([key async for key in place.keys()])

    found: dict[str, bytes] = on(name, work, layout, env)
    return found


def ends(name: str, key: str, *names: str) -> float | None:
    """When an entry expires, in milliseconds."""

    async def work(store: Store) -> float | None:
        found = await below(store, names).get_with_expiry(key)
        assert found is not None
        return None if found[1] is None else (time.time() + found[1]) * 1000

    end: float | None = on(name, work)
    return end


def fields(done: Done, command: str = "copy") -> dict[str, Any]:
    document = done.json
    assert document["format"] == 1
    found: dict[str, Any] = document[command]
    return found


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
    done = run("copy", "letters", "other:new", "--set", "stores.letters.middleware.encrypt=another")
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


def servers(old: Server, new: Server, more: str = "", timeout: str = "5s") -> str:
    name = f"m{uuid4().hex[:12]}"
    with open("servers.yaml", "w") as file:
        file.write(
            f"environments: {{production: {{}}}}\nstores:\n"
            f"  old: {{type: redis, url: '{old.url}', namespace: {name}o, command_timeout: {timeout}}}\n"
            f"  new: {{type: valkey, url: '{new.url}', namespace: {name}n, command_timeout: {timeout}, retries: 0}}\n"
            f"{more.replace('NAME', name)}"
        )
    return name


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


MANY = 30_000


def fill_many(server: Server, name: str) -> None:
    server.ask("EVAL", f"for i = 1, {MANY} do redis.call('SET', '{name}o:x::k' .. i, string.rep('v', 100)) end", 0)


def size(server: Server) -> int:
    return int(server.ask("DBSIZE")[1:])


def start(*arguments: str, cwd: Path, **streams: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *arguments],
        cwd=cwd,
        env=environment({"STORECONF_ENV": "production"}),
        stderr=subprocess.PIPE,
        **streams,
    )


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


# ---------------------------------------------------------------------- dump and restore


def dump_of(name: str, path: str = "dump.jsonl", *more: str) -> list[dict[str, Any]]:
    done = run("dump", name, path, *more)
    assert (done.status, done.out) == (0, "")
    with open(path) as file:
        return [json.loads(line) for line in file]


def test_a_dump_holds_everything(directory: Path) -> None:
    fill("old", {"k": "v"})
    fill("pages", {"größe\n": b"\xff"}, 3600)
    first, *entries, last = dump_of("old")
    assert stat.S_IMODE((directory / "dump.jsonl").stat().st_mode) == 0o600
    created = first.pop("created")
    assert created.endswith("+00:00")
    assert first == {"storeconf": "dump", "version": 1, "store": "old", "environment": "production"}
    assert last["entries"] == 2
    plain, page = sorted(entries, key=lambda entry: "expires" in entry)
    assert (plain["key"], base64.b64decode(plain["value"]), "namespaces" in plain) == ("k", b"v", False)
    assert (page["key"], page["namespaces"], page["value"]) == ("größe\n", ["pages"], "/w==")
    assert abs(page["expires"] - (time.time() + 3600) * 1000) < 60_000
    assert (directory / "dump.jsonl").read_bytes().isascii()


def test_a_file_that_is_there_is_not_overwritten(directory: Path) -> None:
    fill("old", {"k": "v"})
    (directory / "precious").write_text("mine")
    done = run("dump", "old", "precious")
    assert (done.status, done.err) == (1, "error: precious exists; nothing was written\n")
    assert (directory / "precious").read_text() == "mine"
    assert run("dump", "old", "no/such/directory").status == 1
    assert run("restore", "old", "no such file").err == "error: no such file: No such file or directory\n"


def test_what_was_dumped_is_restored_by_pipe_and_by_file(directory: Path) -> None:
    fill("old", {f"k{n}": "v" * n for n in range(1000)})
    fill("letters", {"k": "secret"}, 1000)
    command = " ".join(ROOT_COMMAND)
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{command} dump old | {command} restore other:new || {command} dump old | "
         f"{command} restore new --env other"],
        cwd=directory, env=environment({"STORECONF_ENV": "production"}), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert content("new", env="other") == {f"k{n}": b"v" * n for n in range(1000)}
    assert content("new_letters", env="other") == {"k": b"secret"}
    dump_of("letters")
    assert run("restore", "new_letters", "dump.jsonl").err == "production: restored 1 key to 'new_letters'\n"
    assert content("new_letters") == {"k": b"secret"}
    before, after = ends("letters", "k"), ends("new_letters", "k")
    assert before is not None
    assert after is not None
    assert abs(after - before) < 500


def test_it_is_said_that_encrypted_values_are_in_the_clear() -> None:
    fill("letters", {"k": "secret"})
    assert run("dump", "old", "clear.jsonl").err == (
        "production: dumped 1 key of 'old'\n"
        "production: warning: values of old/pages/letters are encrypted in the store, and not in the dump\n"
    )
    raw = [word for kind in ("encrypt", "compress") for word in ("--set", f"stores.letters.middleware.{kind}=false")]
    done = run("dump", "letters", "raw.jsonl", *raw)
    assert done.err == "production: dumped 1 key of 'letters'\n"
    run("clear", "letters", "--yes")
    assert run("restore", "letters", "raw.jsonl", *raw).status == 0
    assert content("letters") == {"k": b"secret"}


def test_what_has_expired_since_is_left_out() -> None:
    fill("old", {"brief": "v"}, 0.3)
    fill("old", {"long": "v"}, 1000)
    dump_of("old")
    wait_for(lambda: run("get", "old", "brief").status == 1, "the end")
    done = run("restore", "new", "dump.jsonl")
    assert (done.status, done.err) == (0, "production: restored 1 key to 'new', 1 expired since the dump\n")
    assert content("new") == {"long": b"v"}


def test_a_restore_keeps_what_is_there_and_goes_on() -> None:
    fill("old", {"a": "1", "b": "2"})
    dump_of("old")
    fill("new", {"a": "mine"})
    done = run("restore", "new", "dump.jsonl", "--dry-run")
    assert done.err == "production: would restore 1 key to 'new', skip 1 existing\n"
    assert content("new") == {"a": b"mine"}
    assert run("restore", "new", "dump.jsonl").err == "production: restored 1 key to 'new', skipped 1 existing\n"
    assert content("new") == {"a": b"mine", "b": b"2"}
    done = run("restore", "new", "dump.jsonl", "--overwrite", "--format", "json")
    assert fields(done, "restore") == {
        "store": "new",
        "dry_run": False,
        "complete": True,
        "copied": 2,
        "existing": 0,
        "expired": 0,
        "failed": 0,
        "failures": [],
    }
    assert content("new") == {"a": b"1", "b": b"2"}


# Each makes another dump of one with the entries k0 to k4, in the lines 2 to 6.
DAMAGES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int, str]] = {
    "cut between lines": (lambda lines: lines[:4], 3, "dump:4: it was cut: its last line is missing"),
    "cut in a line": (lambda lines: [*lines[:3], lines[3][:20]], 2, "dump:4: the line was cut off"),
    "cut in the first line": (lambda lines: [lines[0][:20]], 0, "dump:1: not a storeconf dump: the line was"),
    "empty": (lambda lines: [], 0, "dump:0: it is empty"),
    "a line is missing": (lambda lines: [*lines[:2], *lines[3:]], 4, "dump:6: the dump had 5 entries, and 4 are here"),
    "a line comes twice": (lambda lines: [*lines[:2], *lines[1:]], 5, "dump:8: the dump had 5 entries, and 6 are here"),
    "another key": (
        lambda lines: [line.replace(b'"k2"', b'"k9"') for line in lines], 4,
        "the entry is damaged: its checksum does not fit",
    ),
    "another expiry": (
        lambda lines: [line.replace(b'"expires":', b'"expires":1', 1) for line in lines], 0,
        "dump:2: the entry is damaged: its checksum does not fit",
    ),
    "no Base64": (
        lambda lines: [line.replace(b'"value":"', b'"value":"!', 1) if b'"k2"' in line else line for line in lines], 4,
        "the value is not Base64",
    ),
    "no JSON": (lambda lines: [*lines[:3], b"\xff{\n", *lines[4:]], 4, "dump:4: the line is not JSON"),
    "deep JSON": (lambda lines: [*lines[:3], b"[" * 100_000 + b"\n", *lines[4:]], 4, "dump:4: the line is not JSON"),
    "no object": (lambda lines: [*lines[:3], b"[]\n", *lines[4:]], 4, "dump:4: the line is not a JSON object"),
    "an odd object": (lambda lines: [*lines[:3], b"{}\n", *lines[4:]], 4, "dump:4: it is neither an entry nor"),
    "an entry without value": (
        lambda lines: [*lines[:3], b'{"key":"k"}\n', *lines[4:]], 4, "dump:4: the entry lacks its key or its value",
    ),
    "an odd expiry": (
        lambda lines: [*lines[:3], b'{"key":"k","value":"","expires":1e99}\n', *lines[4:]], 4,
        "dump:4: 'expires' must be an integer (milliseconds)",
    ),
    "an odd namespace": (
        lambda lines: [*lines[:3], b'{"key":"k","value":"","namespaces":["a:b"]}\n', *lines[4:]], 4,
        "dump:4: 'a:b' can't name a namespace",
    ),
    "no namespaces": (
        lambda lines: [*lines[:3], b'{"key":"k","value":"","namespaces":"a"}\n', *lines[4:]], 4,
        "dump:4: 'namespaces' is not a list of names",
    ),
    "an odd key": (
        lambda lines: [*lines[:3], b'{"key":"\\ud800","value":""}\n', *lines[4:]], 4, "dump:4: a key must be encodable",
    ),
    "another version": (
        lambda lines: [lines[0].replace(b'"version":1', b'"version":2'), *lines[1:]], 0,
        "dump:1: not a storeconf dump: it has version 2, and this storeconf reads 1",
    ),
    "something else": (lambda lines: [b"stores:\n", b"  a: b\n"], 0, "dump:1: not a storeconf dump: the line"),
    "other JSON": (lambda lines: [b'{"a": 1}\n'], 0, "dump:1: not a storeconf dump: its first line"),
    "no lines": (lambda lines: [b"\0" * 1_000_000], 0, "dump:1: not a storeconf dump: the line was cut off"),
    "two dumps": (lambda lines: lines * 2, 5, "dump:8: something follows the last line of the dump"),
    "respelt lines": (
        lambda lines: [line.replace(b'"crc32":', b'"crc32": ') for line in lines], 5,
        "dump:7: the lines before this one are not all as they were written",
    ),
    "another end": (lambda lines: [*lines[:-1], b'{"entries":5,"sha256":7}\n'], 5, "dump:7: it is neither an entry"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_dump_is_told_with_its_line(directory: Path, damage: str) -> None:
    change, restored, says = DAMAGES[damage]
    fill("old", {f"k{n}": f"v{n}" for n in range(5)}, 1000)
    dump_of("old")
    lines = (directory / "dump.jsonl").read_bytes().splitlines(keepends=True)
    (directory / "dump").write_bytes(b"".join(change(lines)))
    for arguments in (("--dry-run",), ()):
        done = run("restore", "new", "dump", *arguments)
        assert done.status == 1
        assert says in done.err
        assert "Traceback" not in done.err
        found = content("new")
        assert len(found) == (0 if arguments else restored)
        assert all(value == key.replace("k", "v").encode() for key, value in found.items())
    stdin = (directory / "dump").read_bytes()
    done = process("restore", "new", cwd=directory, environ={"STORECONF_ENV": "production"}, stdin=stdin)
    assert done.status == 1
    assert says.replace("dump:", "stdin:", 1) in done.err


def test_a_cut_is_told_after_whatever_number_of_damaged_lines(directory: Path) -> None:
    fill("old", {f"k{n}": f"v{n}" for n in range(30)})
    dump_of("old")
    lines = (directory / "dump.jsonl").read_bytes().splitlines(keepends=True)
    (directory / "dump").write_bytes(b"".join([lines[0], *(b"{}\n" for _ in range(25)), *lines[26:-1]]))
    done = run("restore", "new", "dump")
    assert done.status == 1
    assert "error: 5 more failed" in done.err
    assert "dump:31: it was cut: its last line is missing" in done.err
    assert "restored 5 keys to 'new', 25 failed" in done.err


def test_clusters_that_share_a_node_are_the_same_keys(directory: Path) -> None:
    cluster = {"type": "redis", "cluster": ["127.0.0.1:1", "127.0.0.1:2"], "namespace": "shop"}
    other = {"stores": {"main": {"cluster": ["127.0.0.1:2", "127.0.0.1:3"]}}}
    layout = {"stores": {"main": cluster}, "environments": {"a": {}, "b": other}}
    (directory / "clusters.json").write_text(json.dumps(layout))
    done = run("copy", "a:main", "b:main", "-f", "clusters.json")
    assert done.status == 1
    assert "source and destination overlap" in done.err


def test_a_dump_that_is_interrupted_is_cut(directory: Path) -> None:
    old = shared()
    name = servers(old, old)
    fill_many(old, name)
    with start("dump", "old", "dump.jsonl", "-f", "servers.yaml", cwd=directory) as child:
        partial = partial_of(directory)
        child.send_signal(signal.SIGINT)
        assert child.stderr is not None
        told = child.stderr.read().decode()
        assert child.wait(60) == 130
    assert f"it ended early: what was dumped is in {partial}, which `restore` reads" in told
    assert not (directory / "dump.jsonl").exists()
    done = run("restore", "new", partial)
    assert done.status == 1
    assert "it was cut" in done.err
    assert len(content("new", "x")) > 100


def partial_of(directory: Path) -> str:
    """The name of the file that a dump is writing, once there is something in it."""

    def found() -> list[str]:
        return [path.name for path in directory.glob("dump.jsonl.*.partial") if path.stat().st_size > 100_000]

    wait_for(lambda: len(found()) == 1, "some lines")
    return found()[0]


def test_a_dump_that_is_killed_leaves_no_file_of_that_name_and_can_be_made_again(directory: Path) -> None:
    old = shared()
    name = servers(old, old)
    fill_many(old, name)
    words = ("dump", "old", "dump.jsonl", "-f", "servers.yaml")
    with start(*words, cwd=directory) as child:
        partial = partial_of(directory)
        child.kill()
        child.wait(60)
    assert [path.name for path in directory.glob("dump.jsonl*")] == [partial]
    assert run(*words).status == 0
    assert sorted(path.name for path in directory.glob("dump.jsonl*")) == ["dump.jsonl", partial]
    assert stat.S_IMODE((directory / "dump.jsonl").stat().st_mode) == 0o600


def test_a_file_that_appears_while_a_dump_is_written_is_kept(directory: Path) -> None:
    old = shared()
    name = servers(old, old)
    fill_many(old, name)
    with start("dump", "old", "dump.jsonl", "-f", "servers.yaml", cwd=directory) as child:
        partial = partial_of(directory)
        (directory / "dump.jsonl").write_text("mine")
        assert child.stderr is not None
        told = child.stderr.read().decode()
        assert child.wait(60) == 1
    assert f"dump.jsonl exists by now; the dump is in {partial}" in told
    assert (directory / "dump.jsonl").read_text() == "mine"


def test_a_restore_that_waits_for_a_pipe_hears_an_interruption(directory: Path) -> None:
    fill("old", {f"k{n}": "v" for n in range(300)})
    dump_of("old")
    lines = (directory / "dump.jsonl").read_bytes().splitlines(keepends=True)
    with start("restore", "new", "--env", "production", cwd=directory, stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        child.stdin.write(b"".join(lines[:200]))
        child.stdin.flush()
        wait_for(lambda: len(list((directory / "var/new").rglob("*.kv"))) > 50, "some entries")
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130
    assert run("restore", "new", "dump.jsonl").status == 0
    assert len(content("new")) == 300


def test_a_dump_whose_reader_does_not_read_hears_an_interruption(directory: Path) -> None:
    old = shared()
    name = servers(old, old)
    fill_many(old, name)
    with start("dump", "old", "-f", "servers.yaml", cwd=directory, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read(100)
        time.sleep(0.3)  # the pipe is full by now, or the interruption comes a little earlier: both must end it
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130
    command = f"{' '.join(ROOT_COMMAND)} dump old -f servers.yaml | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=directory, env=environment(), capture_output=True, check=False)
    assert (done.returncode, done.stdout.count(b"\n")) == (141, 1)
    assert b"Traceback" not in done.stderr


def test_restore_does_not_wait_for_a_terminal(directory: Path) -> None:
    done = on_terminal("restore", "new", "--env", "production", cwd=directory)
    assert done.status == 2
    assert "give FILE, or a dump on stdin" in done.out


# ---------------------------------------------------------------------- plugins

PLUGIN = """
from typing import ClassVar, Literal

from storeconf import Backend, Capabilities, ConfigPath, FileStore, Middleware, StoreWrapper
from storeconf._hooks import Hooks


class SimpleStore(FileStore):  # has nothing that is optional
    capabilities = Capabilities(persistent=True, shared=True)
    do_walk = Hooks.do_walk


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


# ---------------------------------------------------------------------- bars, memory


def test_a_terminal_shows_a_bar_and_nothing_else_does(directory: Path) -> None:
    fill("old", {f"k{n}": "v" for n in range(100)})
    shown = on_terminal("copy", "old", "new", "--env", "production", cwd=directory).out
    assert "old → new" in shown
    assert "100/100" in shown
    assert "production: copied 100 keys from 'old' to 'new'" in shown
    shown = on_terminal("dump", "old", "dump.jsonl", "--env", "production", cwd=directory).out
    assert "100/100" in shown
    shown = on_terminal("restore", "new", "dump.jsonl", "--env", "production", cwd=directory).out
    assert "100%" in shown
    assert "skipped 100 existing" in shown
    shown = on_terminal("dump", "old", "--env", "production", cwd=directory).out
    assert "100/100" not in shown
    done = process("copy", "old", "new", cwd=directory, environ={"STORECONF_ENV": "production"})
    assert done.both == "production: copied 0 keys from 'old' to 'new', skipped 100 existing\n"


@pytest.mark.slow
def test_large_values_do_not_pile_up(directory: Path) -> None:
    fill("old", {f"small{n}": b"v" for n in range(300)})
    fill("old", {f"k{n}": bytes(2 << 20) for n in range(100)})
    script = (
        "import resource, pathlib, sys; from storeconf.cli import main\n"
        "try: main()\n"
        "finally:\n"
        "    status = pathlib.Path('/proc/self/status')\n"  # what getrusage says there includes the parent at the fork
        "    if status.exists(): print(status.read_text().split('VmHWM:')[1].split()[0])\n"
        "    else: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    most: dict[str, float] = {}
    for arguments in (["copy", "old", "new"], ["dump", "old", "dump.jsonl"], ["restore", "other", "dump.jsonl"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            cwd=directory,
            env=environment({"STORECONF_ENV": "production"}),
            capture_output=True,
            check=False,
        )
        assert b"400 keys" in done.stderr
        most[arguments[0]] = int(done.stdout) / 1024
    assert max(most.values()) < 170, most  # megabytes; there are 200 of values


# ---------------------------------------------------------------------- identity

NAMES = st.lists(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True), max_size=3).map(tuple)
EXPIRIES = st.none() | st.integers(60_000, 1 << 45)


@pytest.mark.parametrize("target", ["file", "server"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    entries=st.dictionaries(
        st.tuples(NAMES, st.text(st.characters(exclude_categories=["Cs"]), max_size=20)),
        st.tuples(st.binary(max_size=300), EXPIRIES),
        max_size=40,
    )
)
def test_a_dump_restored_is_the_same(directory: Path, target: str, entries: Entries) -> None:
    server = shared()
    name = uuid4().hex
    (directory / "identity.yaml").write_text(
        f"environments: {{production: {{}}}}\nstores:\n  here: {{type: file, path: 'var/{name}'}}\n"
        f"  file: {{type: file, path: 'var/{name}f'}}\n"
        f"  server: {{type: redis, url: '{server.url}', namespace: i{name}}}\n"
    )

    async def write(store: Store) -> None:
        for (names, key), (value, expiry) in entries.items():
            await below(store, names).set(key, value, None if expiry is None else expiry / 1000)

    async def read(store: Store) -> Entries:
        found: Entries = {}
        async for names, key in store.walk():
            value, left = await below(store, names).get_with_expiry(key) or (b"", 0)
            found[names, key] = value, None if left is None else round(left * 1000)
        return found

    on("here", write, "identity.yaml")
    dump, layout = f"{name}.jsonl", ("-f", "identity.yaml")
    assert run("dump", "here", dump, *layout).status == 0
    assert run("restore", target, dump, *layout).status == 0
    assert run("copy", target, "file" if target == "server" else "server", *layout).status == 0
    for store in ("file", "server"):
        found = on(store, read, "identity.yaml")
        assert found.keys() == entries.keys()
        for place, (value, left) in found.items():
            expected, expiry = entries[place]
            assert value == expected
            assert (left is None) == (expiry is None)
            if left is not None and expiry is not None:
                assert expiry - 50_000 < left <= expiry
