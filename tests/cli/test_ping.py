"""`storeconf ping`: every store, whatever is wrong with the others."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.cli.running import run
from tests.servers import shared

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def layout(directory: Path) -> Path:
    server = shared()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()[1]
    (directory / "storeconf.yaml").write_text(
        f"""
stores:
  main: {{type: valkey, url: "valkey://{server.address}/0", namespace: shop}}
  cache: {{parent: main}}
  again: {{use: cache}}
  local: {{type: memory}}
  files: {{type: file, path: var}}
environments:
  good: {{default_factory: {{type: valkey, url: "unix://{server.unix_socket}", db: 3, namespace: rest}}}}
  bad:
    stores:
      down: {{type: redis, url: "redis://127.0.0.1:{nobody}", namespace: a, connect_timeout: 100ms, retries: 0}}
      below: {{parent: down}}
      absent: {{type: file, path: nowhere, create: false}}
"""
    )
    return directory


def test_every_store_is_asked_and_every_server_tells_of_itself(layout: Path) -> None:
    done = run("ping", "--env", "good")
    assert (done.status, done.err) == (0, "")
    lines = [line.split(maxsplit=4) for line in done.out.splitlines()]
    assert lines[0] == ["good", "storeconf.yaml"]
    assert [line[:2] for line in lines[1:]] == [
        ["ok", name] for name in ("main", "cache", "again", "local", "files", "default_factory")
    ]
    assert lines[1][4].startswith("valkey 9.")
    assert "standalone, 127.0.0.1:" in lines[1][4]
    assert "no TLS" in lines[1][4]
    assert len(lines[2]) == 4  # the same server; told once
    assert "unix socket, database 3" in lines[6][4]
    assert (layout / "var").is_dir()


def test_results_in_json(layout: Path) -> None:
    shown = run("ping", "--env", "good", "--format", "json").json
    assert shown["environment"] == "good"
    by_name = {each["store"]: each for each in shown["ping"]}
    assert by_name["main"]["ok"] is True
    assert 0 < by_name["cache"]["latency"] < 10
    assert by_name["again"]["server"] == by_name["main"]["server"]
    assert by_name["local"]["server"] is None
    assert by_name["default_factory"]["error"] is None


def test_one_that_does_not_answer_is_status_1_and_keeps_none_of_the_others(layout: Path) -> None:
    done = run("ping", "--env", "bad")
    assert (done.status, done.err) == (1, "")
    lines = {line.split()[1]: line.split(maxsplit=2) for line in done.out.splitlines()[1:]}
    assert {name: line[0] for name, line in lines.items()} == {
        "main": "ok",
        "cache": "ok",
        "again": "ok",
        "local": "ok",
        "files": "ok",
        "down": "failed",
        "below": "failed",
        "absent": "failed",
    }
    assert lines["down"][2].startswith("can't connect to 127.0.0.1:")
    assert lines["below"][2] == "the same"
    assert "nowhere is missing" in lines["absent"][2]
    shown = run("ping", "--env", "bad", "--format", "json")
    assert shown.status == 1
    failed = {each["store"]: each["error"] for each in shown.json["ping"] if not each["ok"]}
    assert failed["down"].startswith("StoreUnavailableError: ")
    assert not (layout / "nowhere").exists()


@pytest.mark.usefixtures("layout")
def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        done = run(
            "ping", "--env", "bad", "--set", f"stores.down.url={url}", "--set", "stores.down.command_timeout=200ms"
        )
    assert done.status == 1
    lines = {line.split()[1]: line.split(maxsplit=2) for line in done.out.splitlines()[1:]}
    assert lines["down"][0] == "failed"
    assert lines["main"][0] == "ok"
