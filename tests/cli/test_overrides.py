"""What ``--set`` says that a mapping of overrides would say with values of other types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.running import run

if TYPE_CHECKING:
    from pathlib import Path

LAYOUT = (
    "stores: {main: {type: file, path: var, description: x, middleware: {ttl: 5, limit: 9}}, other: {type: memory}}\n"
)


@pytest.fixture(autouse=True)
def _layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "storeconf.yaml").write_text(LAYOUT)
    monkeypatch.chdir(tmp_path)


def test_null_removes(tmp_path: Path) -> None:
    gone = ("main.description", "main.middleware.ttl", "other")
    shown = run("show", "--format", "json", *(f"--set=stores.{path}=null" for path in gone)).json
    assert shown["stores"] == {"main": {"type": "file", "path": str(tmp_path / "var"), "middleware": {"limit": 9}}}
    done = run("show", "--set", "stores.main.path=null")
    assert done.status == 1
    assert "type 'file' needs 'path'" in done.err


def test_the_last_of_two_counts(tmp_path: Path) -> None:
    shown = run("show", "--format", "json", "--set=stores.other=null", "--set=stores.other={type: file, path: x}").json
    assert shown["stores"]["other"] == {"type": "file", "path": str(tmp_path / "x")}
