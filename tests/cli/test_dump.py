"""dump and restore: a dump restored is the same, damage is reported, and no part of a dump passes for a whole one."""

from __future__ import annotations

import base64
import json
import signal
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cli.running import ROOT_COMMAND, environment, on_terminal, process, run
from tests.servers import shared, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from storeconf import Store

from tests.cli.moving import Entries, below, content, dump_of, ends, fields, fill, fill_many, layout, on, servers, start

pytestmark = pytest.mark.usefixtures("layout")

__all__ = ["layout"]


# ---------------------------------------------------------------------- dump and restore


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
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
