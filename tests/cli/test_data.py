"""The commands on the data of one store: byte for byte, one store only, and no word that is not needed."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.cli.running import ROOT_COMMAND, environment, process, run
from tests.servers import shared

if TYPE_CHECKING:
    from pathlib import Path

LAYOUT = """
stores:
  main: {type: file, path: var/main}
  cache: {parent: main, middleware: {ttl: 1h}}
  sessions: {parent: main, middleware: {ttl: {default: 1h, renew_on_get: 2h}}}
  again: {use: cache}
  guarded: {parent: main, middleware: {read_only: {}}}
  small: {parent: main, middleware: {limit: {value_size: 4}}}
  other: {type: file, path: var/other}
  absent: {type: file, path: var/absent, create: false}
  local: {type: memory}
  local_child: {parent: local}
environments:
  production: {default_factory: {parent: main}}
  strict: {}
"""


@pytest.fixture(autouse=True)
def _layout(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "storeconf.yaml").write_text(LAYOUT)
    monkeypatch.setenv("STORECONF_ENV", "production")


# ---------------------------------------------------------------------- set, get, delete


def test_bytes_come_out_as_they_went_in() -> None:
    value = bytes(range(256)) * 100 + b"\r\n\x00"
    assert run("set", "cache", "k", "-", stdin=value).both == ""
    done = run("get", "cache", "k")
    assert (done.status, done.raw, done.err) == (0, value, "")


def test_a_text_is_stored_as_utf8_and_nothing_is_added() -> None:
    run("set", "cache", "schlüssel", "größe\n")
    assert run("get", "cache", "schlüssel").raw == "größe\n".encode()
    run("set", "cache", "empty", "")
    done = run("get", "cache", "empty")
    assert (done.status, done.raw) == (0, b"")


def test_what_a_shell_can_not_decode_is_stored_as_it_was_typed(directory: Path) -> None:
    odd = os.fsdecode(b"\xff\xfe")
    assert process("set", "cache", "k", odd, cwd=directory, environ={"STORECONF_ENV": "production"}).status == 0
    assert run("get", "cache", "k").raw == b"\xff\xfe"
    done = process("get", "cache", odd, cwd=directory, environ={"STORECONF_ENV": "production"})
    assert done.status == 1
    assert "lone surrogates" in done.err


def test_a_value_may_look_like_an_option() -> None:
    assert run("set", "cache", "k", "--", "-5").status == 0
    assert run("get", "cache", "k").raw == b"-5"


def test_a_missing_key_is_status_1() -> None:
    for form in ("text", "json"):
        done = run("get", "cache", "nothing", "--format", form)
        assert (done.status, done.out) == (1, "")
        assert done.err == "production: error: no key 'nothing' in 'cache'\n"


def test_json_tells_encoding_and_expiry() -> None:
    run("set", "main", "text", "größe")
    assert run("get", "main", "text", "--format", "json").json == {
        "format": 1,
        "environment": "production",
        "store": "main",
        "key": "text",
        "value": "größe",
        "encoding": "utf-8",
        "expires_in": None,
    }
    run("set", "main", "binary", "-", "--expires-in", "1h30m", stdin=b"\xff")
    shown = run("get", "main", "binary", "--format", "json").json
    assert (shown["value"], shown["encoding"]) == ("/w==", "base64")
    assert 5000 < shown["expires_in"] <= 5400


def test_the_middleware_of_the_store_applies() -> None:
    run("set", "cache", "k", "v")
    assert 3000 < run("get", "cache", "k", "--format", "json").json["expires_in"] <= 3600
    done = run("set", "guarded", "k", "v")
    assert done.status == 1
    assert done.err.startswith("production: error: set on 'guarded': ")
    done = run("set", "small", "k", "too much")
    assert done.status == 1
    assert done.err.startswith("production: error: set on 'small': ")


def test_looking_renews_nothing() -> None:
    run("set", "sessions", "k", "v")
    for _ in range(2):
        assert run("get", "sessions", "k", "--format", "json").json["expires_in"] <= 3600


def test_an_alias_is_the_same_store() -> None:
    run("set", "again", "k", "v")
    assert run("get", "cache", "k").out == "v"


def test_keys_are_removed_and_missing_ones_are_no_error() -> None:
    for key in "abc":
        run("set", "cache", key, "v")
    done = run("delete", "cache", "a", "b", "nothing")
    assert (done.status, done.both) == (0, "")
    assert run("keys", "cache").out == "c\n"


# ---------------------------------------------------------------------- keys


def test_keys_are_those_of_the_store_alone() -> None:
    for store, key in (("main", "a"), ("main", "ab"), ("cache", "below"), ("other", "beside")):
        run("set", store, key, "v")
    assert run("keys", "main").out == "a\nab\n"
    assert run("keys", "main", "ab").out == "ab\n"
    assert run("keys", "main", "x").out == ""
    assert run("keys", "main", "--format", "json").json == {
        "format": 1,
        "environment": "production",
        "store": "main",
        "keys": ["a", "ab"],
    }


def test_odd_keys_come_one_a_line_and_can_be_told_apart() -> None:
    keys = ["plain", "with blank", 'a "quote"', '"quoted"', "two\nlines", "\x1b[2J", " padded", "", "größe", "\u2028"]
    for key in keys:
        run("set", "main", key, "v")
    lines = run("keys", "main").out.splitlines()
    assert sorted(json.loads(line) if line.startswith('"') else line for line in lines) == sorted(keys)
    assert "größe" in lines
    assert run("keys", "main", "--format", "json").json["keys"] == sorted(keys)


def test_many_keys_come_each_once() -> None:
    server = shared()
    name = f"c{uuid4().hex}"
    values = ("type=valkey", f"url={server.url}", f"namespace={name}", "path=null")
    layout = [word for value in values for word in ("--set", f"stores.main.{value}")]
    server.ask("EVAL", f"for i = 1, 1234 do redis.call('SET', '{name}::k' .. i, 'value') end", 0)
    done = run("keys", "main", *layout)
    assert (done.status, done.err) == (0, "")
    assert sorted(done.out.splitlines()) == sorted(f"k{i}" for i in range(1, 1235))
    command = " ".join([*ROOT_COMMAND, "keys", "main", "--env", "production", *layout])
    head = subprocess.run(["bash", "-c", f"{command} | head -1"], capture_output=True, env=environment(), check=True)
    assert (head.stdout.count(b"\n"), head.stderr) == (1, b"")
    stats = run("stats", "main", "--format", "json", *layout).json["stats"][0]
    assert (stats["entries"], stats["permanent"]) == (1234, 1234)
    assert run("raw-key", "main", "k1", *layout).out == f"{name}::k1\n"
    assert run("get", "main", "k1", *layout).out == "value"
    assert run("clear", "main", "--yes", *layout).status == 0
    assert server.ask("EXISTS", f"{name}::k1") == b":0\r\n"


# ---------------------------------------------------------------------- clear, prune


def test_clear_reaches_downwards_and_nowhere_else() -> None:
    for store in ("main", "cache", "other"):
        run("set", store, "k", "v")
    done = run("clear", "cache", "--yes")
    assert (done.status, done.out, done.err) == (0, "", "production: removed everything in 'cache'\n")
    assert [run("keys", store).out for store in ("main", "cache", "other")] == ["k\n", "", "k\n"]
    run("set", "cache", "k", "v")
    run("clear", "main", "--yes")
    assert [run("keys", store).out for store in ("main", "cache", "other")] == ["", "", "k\n"]


def test_an_environment_is_named_though_a_secret_contains_its_name(tmp_path: Path) -> None:
    layout = tmp_path / "named.yaml"
    chain = {"encrypt": {"keys": ["development-only"]}}
    store = {"type": "file", "path": "data", "middleware": chain}
    layout.write_text(json.dumps({"stores": {"s": store}, "environments": {"development": {}}}))
    done = run("clear", "s", "--yes", "-f", str(layout), "--env", "development")
    assert (done.status, done.err.splitlines()[-1]) == (0, "development: removed everything in 's'")


@pytest.mark.parametrize(
    ("answer", "status", "left", "said"),
    [
        (b"y\n", 0, "", "removed everything in 'main'"),
        (b"yes", 0, "", "removed everything in 'main'"),
        (b"n\n", 1, "k\n", "nothing was removed"),
        (b"\n", 1, "k\n", "nothing was removed"),
        (b"", 2, "k\n", "no terminal to confirm on; pass --yes"),
    ],
)
def test_clear_takes_its_answer_from_a_pipe_too(
    directory: Path, answer: bytes, status: int, left: str, said: str
) -> None:
    run("set", "main", "k", "v")
    done = process("clear", "main", cwd=directory, environ={"STORECONF_ENV": "production"}, stdin=answer)
    assert (done.status, done.out) == (status, "")
    assert done.err.startswith("production: remove everything in 'main', and with it cache")
    assert said in done.err
    assert run("keys", "main").out == left


def files(directory: Path) -> int:
    return len(list(directory.rglob("*.kv")))


def test_purge_drops_what_has_expired(directory: Path) -> None:
    for store in ("main", "cache", "other"):
        run("set", store, "brief", "v", "--expires-in", "1ms")
        run("set", store, "long", "v", "--expires-in", "1h")
    while any(run("get", store, "brief").status == 0 for store in ("main", "cache", "other")):
        time.sleep(0.001)
    assert files(directory) == 6
    assert run("prune", "cache").both == ""
    assert files(directory) == 5
    assert run("prune", "main").status == 0
    assert files(directory) == 4
    (directory / "var/absent").mkdir()
    assert run("prune").both == ""
    assert files(directory) == 3


def test_purge_of_all_stores_tells_of_the_one_that_fails_and_does_the_others(directory: Path) -> None:
    run("set", "other", "brief", "v", "--expires-in", "1ms")
    while run("get", "other", "brief").status == 0:
        time.sleep(0.001)
    done = run("prune")
    assert done.status == 1
    assert done.err.startswith("production: error: ")
    assert "var/absent" in done.err
    assert files(directory) == 0


# ---------------------------------------------------------------------- stats, key


def test_stats_count_one_store() -> None:
    run("set", "main", "k", "four")
    run("set", "main", "key", "v" * 1500, "--expires-in", "1h")
    run("set", "main", "later", "v", "--expires-in", "14d")
    run("set", "cache", "below", "v")
    stats = run("stats", "main", "--format", "json").json["stats"]
    assert len(stats) == 1
    assert 3500 < stats[0].pop("next_expiry") <= 3600
    assert 1209000 < stats[0].pop("last_expiry") <= 1209600
    assert stats[0] == {
        "store": "main",
        "entries": 3,
        "bytes": 1 + 4 + 3 + 1500 + 5 + 1,
        "largest_value": 1500,
        "permanent": 1,
    }
    lines = [line.split("  ", 1) for line in run("stats", "main").out.splitlines()]
    assert lines[0] == ["production", "main"]
    assert [name for name, _ in lines[1:]] == [
        "entries",
        "keys and values",
        "largest value",
        "never expire",
        "next expiry in",
        "last expiry in",
    ]
    assert [value.strip() for _, value in lines[1:5]] == ["3", "1.5 KiB", "1.5 KiB", "1"]
    assert lines[5][1].split()[0] in ("1h", "59m")
    assert lines[6][1].split()[0] in ("14d", "13d")


def test_stats_of_an_empty_store() -> None:
    stats = run("stats", "cache", "--format", "json").json["stats"][0]
    assert (stats["entries"], stats["next_expiry"], stats["last_expiry"]) == (0, None, None)


def test_the_raw_key_is_the_files_path(directory: Path) -> None:
    path = directory / run("raw-key", "cache", "k").out.rstrip("\n")
    assert not path.exists()
    assert not (directory / "var").exists()
    run("set", "cache", "k", "v")
    assert path.is_file()
    assert run("raw-key", "cache", "k", "--format", "json").json["raw_key"] == str(path)


def test_the_raw_key_of_a_server_needs_no_server() -> None:
    values = ("type=redis", "url=redis://127.0.0.1:1", "namespace=shop")
    layout = [word for value in values for word in ("--set", f"stores.local.{value}")]
    assert run("raw-key", "local_child", "a b", *layout).out == "shop:local_child::a b\n"


def test_memory_has_no_raw_key() -> None:
    done = run("raw-key", "local", "k")
    assert (done.status, done.out) == (1, "")
    assert done.err.endswith("production: error: the keys of 'local' have no form that anything else could see\n")
    done = run("raw-key", "local", "k", "--format", "json")
    assert (done.status, done.json["raw_key"]) == (1, None)


# ---------------------------------------------------------------------- which store


def test_no_other_store_is_opened(directory: Path) -> None:
    assert run("set", "other", "k", "v").both == ""
    assert sorted(path.name for path in (directory / "var").iterdir()) == ["other"]


def test_a_store_in_memory_is_of_this_process_alone_and_says_so() -> None:
    done = run("set", "local_child", "k", "v")
    assert done.status == 0
    assert done.err == (
        "production: warning: 'local_child' is an in-memory store; this process starts with an empty one\n"
    )


def test_a_name_that_is_not_listed_comes_from_the_default_factory_and_says_so() -> None:
    done = run("set", "chache", "k", "v")
    assert done.status == 0
    assert done.err == (
        "production: warning: 'chache' is not listed; the default factory makes it; did you mean 'cache'?\n"
    )
    assert run("get", "chache", "k").out == "v"
    assert run("get", "cache", "k").status == 1


def test_without_a_default_factory_a_name_must_be_listed() -> None:
    done = run("set", "chache", "k", "v", "--env", "strict")
    assert done.status == 1
    assert done.err == "strict: error: unknown store 'chache'; did you mean 'cache'?\n"


@pytest.mark.parametrize("name", ["a b", "", "a/b", "-x-", "__"])
def test_a_name_that_no_store_can_have_is_a_message(name: str) -> None:
    done = run("get", "--", name, "k")
    assert done.status == 1
    assert done.err.startswith("production: error: unknown store ")


def test_a_store_that_can_not_open_is_a_message() -> None:
    done = run("get", "absent", "k")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("production: error: open on 'absent': the directory ")
