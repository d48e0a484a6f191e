"""What a layout says about a file store."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from storeconf import BuildContext, FileStore
from storeconf.backends.file import FileBackend


def context() -> BuildContext:
    return BuildContext(name="uploads", environment=None, store=lambda name: FileStore("other"))


@pytest.mark.parametrize("written", ["0750", "750", 750, "0o750", " 0750 ", 0o750])
def test_modes_are_octal_from_their_text(written: object) -> None:
    backend = FileBackend.model_validate({"path": "data", "mode": written})
    assert backend.mode == 0o750
    assert backend.model_dump()["mode"] == "0750"


@pytest.mark.parametrize(
    "written", [0, 0o677, 0o1000, 678, 778, -750, "488", "0650", "7777", "1750", "0798", "rwx", "", True, None, 7.5]
)
def test_what_is_no_mode_is_refused(written: object) -> None:
    with pytest.raises(ValidationError, match="mode"):
        FileBackend.model_validate({"path": "data", "mode": written})


def test_the_defaults_are_those_that_people_want() -> None:
    backend = FileBackend(path=Path("data"))
    assert (backend.create, backend.durability, backend.mode) == (True, "flush", 0o700)
    assert backend.path == Path.cwd() / "data"
    assert FileBackend.model_json_schema()["properties"]["mode"]["default"] == "0700"


def test_it_builds_what_it_says(tmp_path: Path) -> None:
    backend = FileBackend(path=tmp_path / "data", create=False, durability="fsync", mode="0750")  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        FileBackend(path=tmp_path, durability="never")  # type: ignore[arg-type]
    store = backend.build(context())
    assert (store.path, store.create_directories, store.durability, store.mode) == (
        tmp_path / "data",
        False,
        "fsync",
        0o750,
    )
    assert store.must_exist
    assert not (tmp_path / "data").exists()
    made = FileBackend(path=tmp_path / "data").build(context())
    assert (made.create_directories, made.must_exist) == (True, False)
    assert backend.capabilities == FileStore.capabilities


def test_directories_in_each_other_collide_however_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")

    def location(path: str) -> tuple[str, ...]:
        return FileBackend(path=tmp_path / path).location()

    parts = tuple(os.path.realpath(tmp_path).strip("/").split("/"))
    assert location("real") == location("link") == location("real/../link/.") == ("file", *parts, "real")
    assert location("link/below") == ("file", *parts, "real", "below")
    assert location("reality") == ("file", *parts, "reality")
    assert FileBackend(path=Path("/")).location() == ("file",)
