"""examples/celery does in two worker processes, forked after the layout was loaded, what it claims."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.examples.pages import EXAMPLES, Pages, clients
from tests.servers import Server, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DIRECTORY = EXAMPLES / "celery"


@pytest.fixture(scope="module")
def valkey() -> Iterator[Server]:
    with Server("valkey-9.1") as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("environment", ["file", "valkey"])
def test_reports(environment: str, valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORECONF_ENV", environment)
    monkeypatch.setenv("STORE_DIRECTORY", str(tmp_path / "stores"))
    monkeypatch.setenv("VALKEY_URL", f"valkey://{valkey.address}")
    monkeypatch.setenv("MESSAGES", str(tmp_path / "messages"))
    monkeypatch.setenv("PYTHONWARNINGS", "default::ResourceWarning")
    quiet = ["--without-mingle", "--without-gossip", "--without-heartbeat", "--loglevel", "warning"]
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-P", "prefork", "-c", "2", *quiet]
    log = tmp_path / "log"
    with log.open("wb") as file:
        worker = subprocess.Popen(command, cwd=DIRECTORY, stdout=file, stderr=subprocess.STDOUT)
    try:
        tasks = Pages(DIRECTORY, environment, [], monkeypatch)("tasks")
        answers: list[dict[str, Any]] = []
        while len({answer["worker"] for answer in answers}) < 2:
            asked = [tasks.report.delay("2026-11") for _ in range(6)]
            answers += [result.get(timeout=60, interval=0.05) for result in asked]
        assert len({(answer["month"], answer["made_by"]) for answer in answers}) == 1
        assert sorted(answer["asked"] for answer in answers) == list(range(1, len(answers) + 1))
        assert not tasks.registry.is_open  # whoever asks for a task needs no store
    finally:
        worker.terminate()
        status = worker.wait(30)
    assert status == 0, log.read_text()
    assert "Traceback" not in log.read_text(), log.read_text()
    assert "was left open" not in log.read_text(), log.read_text()
    wait_for(lambda: clients(valkey) == [], "no connection is open")
