"""examples/django does over HTTP what it claims, in two workers that were forked after the application was loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.examples.pages import clients
from tests.servers import Server, free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY = Path(__file__).parents[2] / "examples" / "django"


@pytest.fixture(scope="module")
def valkey() -> Iterator[Server]:
    with Server("valkey-9.1") as server:
        yield server


@pytest.mark.parametrize("environment", ["file", "valkey"])
def test_shop(environment: str, valkey: Server, tmp_path: Path) -> None:
    port = free_port()
    variables = {
        "STORECONF_ENV": environment,
        "STORE_DIRECTORY": str(tmp_path / "stores"),
        "VALKEY_URL": f"valkey://{valkey.address}",
        "PYTHONWARNINGS": "default::ResourceWarning",
    }
    command = [sys.executable, "-m", "gunicorn", "shop:application", "--preload", "-w", "2", "-b", f"127.0.0.1:{port}"]
    log = tmp_path / "log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            command, cwd=DIRECTORY, env={**os.environ, **variables}, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        wait_for(lambda: log.read_text().count("Booting worker") == 2 or server.poll() is not None, "the workers")
        assert server.poll() is None, log.read_text()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            assert len({client.get("/page").json()["rendered by"] for _ in range(10)}) == 1
            visits: list[int] = []
            workers: set[int] = set()
            while len(workers) < 2:
                answer = client.get("/visit").json()
                visits.append(answer["visits"])
                workers.add(answer["worker"])
            assert visits == list(range(1, len(visits) + 1))
            assert client.get("/seen").json() == {"visits": len(visits)}
    finally:
        server.terminate()
        server.wait(20)
    assert "Traceback" not in log.read_text(), log.read_text()
    assert "was left open" not in log.read_text(), log.read_text()
    wait_for(lambda: clients(valkey) == [], "no connection is open")
