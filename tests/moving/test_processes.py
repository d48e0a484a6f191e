"""A move under load in several processes that follow one layout: prepare, move, and the middleware removed.

Each process writes down what it did and saw. What they saw together must have an order: so nobody is logged out, no
increment is lost or counted twice, and nothing that was deleted comes back.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import uuid
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import storeconf.sync
from storeconf import FileStore, UnsupportedOperationError
from tests.cli.running import Done, run
from tests.history import UNKNOWN, Call, unfinished, violation, violations
from tests.moving.worker import COUNTERS
from tests.servers import cluster, sentinels, shared, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


def call(begin: float, end: float, operation: str, *arguments: Any, result: Any = None) -> Call:
    return Call(begin, end, "k", operation, arguments, result)


@pytest.mark.parametrize(
    ("calls", "fine"),
    [
        ([call(1, 2, "set", "a"), call(3, 4, "get", result="a")], True),
        ([call(1, 2, "set", "a"), call(3, 4, "get", result=None)], False),
        ([call(1, 4, "set", "a"), call(2, 3, "get", result=None), call(2, 3, "get", result="a")], True),
        ([call(1, 9, "set", "a"), call(2, 3, "get", result="a"), call(4, 5, "get", result=None)], False),
        ([call(1, 2, "increment", result=1), call(1, 2, "increment", result=1)], False),
        ([call(1, 2, "increment", result=2), call(1, 2, "increment", result=1)], True),
        ([call(1, 2, "increment", result=1), call(3, 4, "increment", result=3)], False),
        ([call(1, 2, "set", "a"), call(3, 4, "delete", result=True), call(5, 6, "get", result="a")], False),
        ([call(1, 2, "set", "a"), call(3, 4, "pop", result="a"), call(3, 4, "pop", result="a")], False),
        ([unfinished(1, "k", "set", ("a",)), call(3, 4, "get", result=None), call(5, 6, "get", result="a")], True),
        ([unfinished(1, "k", "set", ("a",)), call(3, 4, "get", result="a"), call(5, 6, "get", result=None)], False),
        ([call(1, 2, "set", "a"), unfinished(3, "k", "delete", ()), call(4, 5, "add", "b", result=True)], True),
        ([call(1, 2, "set", "a"), call(4, 5, "compare_and_set", "b", "c", result=True)], False),
    ],
)
def test_the_checker_knows_what_can_have_happened(calls: list[Call], fine: bool) -> None:
    assert (violation(calls) is None) == fine


class Process:
    """One that uses the store, and its log."""

    def __init__(self, directory: Path, number: int) -> None:
        self._log = directory / f"log-{number}"
        self._errors = directory / f"errors-{number}"
        self._read = 0
        self._lines: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.layout = directory / f"storeconf-{number}.yaml"
        command = [sys.executable, "-m", "tests.moving.worker", str(self.layout), str(self._log)]
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen([*command, str(number)], cwd=ROOT, stdin=subprocess.PIPE, stderr=errors)

    def _told(self, field: str) -> list[str]:
        """Read on in the log; what it has told so far."""
        if self._log.exists():
            with self._log.open("rb") as file:
                file.seek(self._read)
                *lines, rest = file.read().split(b"\n")
                self._read = file.tell() - len(rest)
            for line in map(json.loads, lines):
                for each in ("note", "fault", "begin", "end"):
                    if each in line:
                        self._lines[each].append(line)
        return [line[field] for line in self._lines[field]]

    def layouts(self) -> int:
        """How many layouts it has followed: that of the start, and those of reloads that changed something."""
        assert self._process.poll() is None, self._errors.read_text()
        return sum(note == "started" or "reloaded; changed: " in note for note in self._told("note"))

    def made(self) -> int:
        """How many calls have ended."""
        assert self._process.poll() is None, self._errors.read_text()
        return len(self._told("end"))

    def calls(self) -> list[Call]:
        self._told("end")
        ends = {line["call"]: line for line in self._lines["end"]}
        found = []
        for line in self._lines["begin"]:
            begin, key, operation, arguments = (line[name] for name in ("begin", "key", "operation", "arguments"))
            if (end := ends.get(line["call"])) is None:
                found.append(unfinished(begin, key, operation, tuple(arguments)))
            else:
                found.append(Call(begin, end["end"], key, operation, tuple(arguments), end["result"]))
        return found

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def end(self) -> None:
        """Let it end by itself, as it must be able to after all."""
        self._process.communicate(timeout=60)
        assert self._process.returncode == 0, self._errors.read_text()
        assert self._told("fault") == []
        assert self._told("note")[-1] == "ended"


@contextmanager
def server(kind: str, directory: Path) -> Iterator[dict[str, Any]]:
    """The settings of a root."""
    namespace = f"n{uuid.uuid4().hex}"
    if kind == "file":
        yield {"type": "file", "path": str(directory / "old"), "namespace": namespace}
    elif kind == "Cluster":
        with cluster() as nodes:
            yield {"type": "valkey", "cluster": [node.address for node in nodes], "namespace": namespace}
    elif kind == "Sentinel":
        with sentinels(count=1) as watched:
            yield {"type": "valkey", "sentinel": {"nodes": watched.nodes, "service": "shop"}, "namespace": namespace}
    else:
        url = shared("redis-8.2" if kind == "redis" else "valkey-9.1").url
        yield {"type": kind, "url": url, "namespace": namespace}


def move(old: dict[str, Any], new: dict[str, Any], directory: Path, *, processes: int, calls: int, kill: bool) -> None:
    """Move under load; between two steps each process makes that many calls."""
    preparing = new | {"middleware": {"moved_from": {"store": "before", "prepare": True}}}
    moving = new | {"middleware": {"moved_from": "before"}}
    layouts = [
        json.dumps(
            {"stores": {"main": main, "s": {"parent": "main"}} | ({"before": old} if "middleware" in main else {})}
        )
        for main in (old, preparing, moving, new)
    ]
    layout = directory / "storeconf.yaml"

    def everywhere(step: int) -> None:
        """Let one process after another follow, as in a rolling deployment, and all go on for a while in between."""
        for process in list(running):
            process.layout.with_suffix(".draft").write_text(layouts[step])
            process.layout.with_suffix(".draft").replace(process.layout)
            wait_for(lambda process=process: process.layouts() == step + 1, "a process that follows")
            before = [each.made() for each in running]
            wait_for(
                lambda before=before: all(
                    each.made() >= least + calls for each, least in zip(running, before, strict=True)
                ),
                "processes that go on",
            )

    for number in range(processes):
        (directory / f"storeconf-{number}.yaml").write_text(layouts[0])
    running = [Process(directory, number) for number in range(processes)]
    killed: list[Process] = []
    try:
        for step in range(3):
            everywhere(step)
            if kill and step == 2:
                running[0].kill()
                killed.append(running.pop(0))
        layout.write_text(layouts[2])
        done = run("move", "s", "-f", str(layout), "--format", "json")
        assert done.status == 0, done.both
        assert run("keys", "before", "-f", str(layout)).out == ""
        everywhere(3)
        for each in running:
            each.end()
    finally:
        for each in running:
            each.kill()
    history = [found for each in (*running, *killed) for found in each.calls()]
    assert violations(history) == []
    for counter in COUNTERS:
        counted = [each for each in history if each.key == counter]
        value = int(run("get", "s", counter, "-f", str(layout)).out)
        unknown = sum(each.result == UNKNOWN for each in counted)
        assert len(counted) - unknown <= value <= len(counted)


@pytest.mark.parametrize("kind", ["redis", "file"])
def test_a_move_to_valkey(kind: str, tmp_path: Path) -> None:
    with server(kind, tmp_path) as old, server("valkey", tmp_path) as new:
        move(old, new, tmp_path, processes=2, calls=100, kill=False)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["valkey", "Cluster", "Sentinel"])
@pytest.mark.parametrize("kind", ["redis", "file"])
def test_a_long_move_in_which_processes_die(kind: str, target: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        old = stack.enter_context(server(kind, tmp_path))
        new = stack.enter_context(server(target, tmp_path))
        move(old, new, tmp_path, processes=4, calls=250, kill=True)


def test_the_status_of_the_command_tells_whether_anything_remains(tmp_path: Path) -> None:
    layout, ended = tmp_path / "storeconf.yaml", threading.Event()

    def moved(middleware: dict[str, Any], *arguments: str) -> Done:
        before, after = ({"type": "file", "path": name} for name in ("old", "new"))
        layout.write_text(json.dumps({"stores": {"before": before, "s": after | {"middleware": middleware}}}))
        return run("move", "s", "-f", str(layout), *arguments)

    def write() -> None:
        with registry:
            turn = 0
            while not ended.is_set():
                turn += 1
                registry["before"].set_many({f"k{turn}-{number}": "v" for number in range(20)})

    assert moved({}).status == 1
    only_prepares = moved({"moved_from": {"store": "before", "prepare": True}})
    assert only_prepares.status == 1
    assert "only prepares" in only_prepares.err
    registry = storeconf.sync.load(layout, environ={})  # before the file changes again
    writer = threading.Thread(target=write)  # as a process does that does not know of the move yet
    writer.start()
    try:
        wait_for(lambda: moved({"moved_from": "before"}).status == 1, "an entry that remains")
    finally:
        ended.set()
        writer.join()
    done = moved({"moved_from": "before"}, "--format", "json")
    assert done.status == 0
    (result,) = done.json["move"]
    assert (result["store"], result["from"], result["remaining"]) == ("s", "before", 0)
    assert run("keys", "before", "-f", str(layout)).out == ""
    (key, *_) = run("keys", "s", "-f", str(layout)).out.split()
    assert run("set", "before", key, "later", "-f", str(layout)).status == 0
    for _ in range(2):  # it is not known which of the two counts
        done = moved({"moved_from": "before"}, "--format", "json")
        assert (done.status, done.json["move"][0]["remaining"]) == (1, 1)
    assert run("get", "s", key, "-f", str(layout)).out == "v"
    assert run("clear", "before", "--yes", "-f", str(layout)).status == 0
    assert moved({"moved_from": "before"}).status == 0


def test_an_old_store_that_lists_no_namespaces_may_hold_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise UnsupportedOperationError("no namespaces here")  # as with a plugin's store that has no such hook

    layout = tmp_path / "storeconf.yaml"
    before, after = ({"type": "file", "path": name} for name in ("old", "new"))
    layout.write_text(json.dumps({"stores": {"before": before, "s": after | {"middleware": {"moved_from": "before"}}}}))
    monkeypatch.setattr(FileStore, "do_walk", refuse)
    done = run("move", "s", "-f", str(layout))
    assert done.status == 1
    assert "warning: 'before' can't list its namespaces" in done.err
