"""Files: what can't be read is a diagnostic with a way out, and pyproject.toml gives its table."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from storeconf.config.document import MAX_BYTES, parse, read
from storeconf.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storeconf.diagnostics import Diagnostic


def problem(path: Path, shown: str | None = None) -> Diagnostic:
    with pytest.raises(ConfigError) as caught:
        read(path, shown)
    (only,) = caught.value.diagnostics
    return only


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["a.yaml", "a.yml", "a.YAML", "a.json"])
def test_the_name_says_the_format(tmp_path: Path, name: str) -> None:
    document = read(write(tmp_path / name, b'{"version": 1}'))
    assert document.value == {"version": 1}
    assert document.path == tmp_path / name
    assert document.file == str(tmp_path / name)


def test_a_relative_name_stays_relative_where_it_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.toml", b"version = 1\n")
    monkeypatch.chdir(tmp_path)
    document = read(Path("a.toml"))
    assert (document.file, document.path) == ("a.toml", tmp_path / "a.toml")
    assert read(Path("a.toml"), "shop/a.toml").file == "shop/a.toml"


def test_a_parsed_text_has_no_path() -> None:
    document = parse(b"a: 1\nb: 2\n", "yaml", "<text>")
    assert (document.path, document.file, document.text) == (None, "<text>", "a: 1\nb: 2\n")
    assert document.lines(2, 9) == ((2, "b: 2"), (3, ""))
    assert repr(document) == "Document('<text>')"


def test_a_name_that_says_nothing(tmp_path: Path) -> None:
    found = problem(write(tmp_path / "storeconf.conf", b"a: 1"))
    assert found.code == "SC104"
    assert found.hint == "give it a name that ends in .yaml, .yml, .toml, .json"


def test_a_missing_file_that_was_nearly_there(tmp_path: Path) -> None:
    write(tmp_path / "storeconf.yaml", b"")
    found = problem(tmp_path / "storeconf.yml", "storeconf.yml")
    assert (found.code, found.file, found.line) == ("SC101", "storeconf.yml", None)
    assert found.hint == "did you mean 'storeconf.yaml'?"


def test_missing_files_and_directories(tmp_path: Path) -> None:
    assert problem(tmp_path / "nowhere" / "a.yaml").hint == f"the directory does not exist: '{tmp_path / 'nowhere'}'"
    write(tmp_path / "a.yaml", b"")
    for name in ("a.yaml/b.yaml", "n" * 300 + ".yaml", "nul\0.yaml"):
        found = problem(tmp_path / name)
        assert found.code in ("SC101", "SC103")
        assert found.file is not None
        assert found.file.isprintable()


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("b.yaml")
    (tmp_path / "b.yaml").symlink_to("a.yaml")
    (tmp_path / "c.yaml").symlink_to("nothing.yaml")
    assert problem(tmp_path / "a.yaml").message == "symbolic link loop"
    assert problem(tmp_path / "c.yaml").message == "broken symbolic link"


def test_a_link_to_a_file_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", b"version: 1")
    (tmp_path / "b.yaml").symlink_to("a.yaml")
    assert read(tmp_path / "b.yaml").value == {"version": 1}


def test_a_directory(tmp_path: Path) -> None:
    found = problem(tmp_path)
    assert (found.code, found.hint) == ("SC102", "name a file")
    write(tmp_path / "storeconf.toml", b"")
    assert problem(tmp_path, "shop").hint == f"name the file in it: shop{os.sep}storeconf.toml"


def test_pipes_devices_and_sockets_never_make_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with socket.socket(socket.AF_UNIX) as server:
        address = f"/proc/self/fd/{os.open(tmp_path, os.O_RDONLY)}/socket.yaml"  # within the 108 bytes of an address
        server.bind(address)
        found = [problem(path) for path in (tmp_path / "pipe.yaml", Path("/dev/zero"), tmp_path / "socket.yaml")]
    assert [each.code for each in found] == ["SC102"] * 3
    assert [each.message for each in found] == [
        f"this is a {kind}, not a regular file" for kind in ("pipe", "device", "socket")
    ]


@contextmanager
def nobody() -> Iterator[None]:
    """Without root's rights, where the tests have them."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", b"").chmod(0)
    with nobody():
        found = problem(tmp_path / "a.yaml")
    assert (found.code, found.message) == ("SC103", "the file can't be read: permission denied")


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    with (tmp_path / "a.yaml").open("wb") as file:
        file.truncate(50_000_000)
    assert problem(tmp_path / "a.yaml").message == "the file has 50,000,000 bytes, and at most 4MiB are read"
    exactly = b"a: 1 #" + b"x" * (MAX_BYTES - 6)
    assert read(write(tmp_path / "b.yaml", exactly)).value == {"a": 1}
    assert problem(write(tmp_path / "b.yaml", exactly + b"x")).code == "SC105"
    with pytest.raises(ConfigError, match="SC105"):
        parse(exactly + b"x", "yaml", "a.yaml")


@pytest.mark.parametrize("suffix", ["yaml", "toml", "json"])
@pytest.mark.parametrize(
    ("data", "line", "column", "words"),
    [
        ("a: 1".encode("utf-16"), 1, 1, "the file is UTF-16"),
        ("a: 1".encode("utf-32"), 1, 1, "the file is UTF-32"),
        ("a: 1".encode("utf-16-le"), 1, 1, "the file is UTF-16 or UTF-32"),
        (b"\x7fELF\x02\x01\x01\0\0\0", 1, 8, "NUL byte"),
        (b"a: 1\nb: \xc3\xa9\0\n", 2, 5, "NUL byte"),
        (b"a: 1\nb: \xc3\xa9\xe9\n", 2, 5, "the byte 0xE9 is not UTF-8"),
        (b"\xef\xbb\xbfa\xff", 1, 2, "the byte 0xFF is not UTF-8"),
        (b"a\xed\xa0\x80", 1, 2, "not UTF-8"),
    ],
)
def test_what_is_no_text(tmp_path: Path, suffix: str, data: bytes, line: int, column: int, words: str) -> None:
    found = problem(write(tmp_path / f"a.{suffix}", data))
    assert (found.code, found.line, found.column) == ("SC106", line, column)
    assert words in found.message


@pytest.mark.parametrize(("text", "column"), [("- a\n", 1), ("  hello\n", 3), ("[]", 1), ("17", 1)])
def test_the_outermost_value_must_be_a_mapping(text: str, column: int) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(b"# c\n" + text.encode(), "yaml", "a.yaml")
    (found,) = caught.value.diagnostics
    assert (found.code, found.line, found.column) == ("SC117", 2, column)


PYPROJECT = b"""[project]
name = "shop"
released = 2020-01-01

[tool.storeconf]
version = 1
[tool.storeconf.stores.main]
type = "memory"
"""


def test_pyproject_gives_its_table(tmp_path: Path) -> None:
    document = read(write(tmp_path / "pyproject.toml", PYPROJECT))
    assert document.value == {"version": 1, "stores": {"main": {"type": "memory"}}}
    places = [
        document.location(path) for path in ((), ("version",), ("stores", "main", "type"), ("stores", "main", "x"))
    ]
    assert [(place.line, place.column) for place in places if place] == [(5, 7), (6, 11), (8, 8), (7, 24)]


@pytest.mark.parametrize(
    ("text", "code", "line", "path"),
    [
        (b"", "SC118", None, None),
        (b"[project]\nname = 'x'\n", "SC118", None, None),
        (b"[tool.other]\nx = 1\n", "SC118", None, None),
        (b"tool = 1\n", "SC117", 1, None),
        (b"[tool]\nstoreconf = [1]\n", "SC117", 2, None),
        (PYPROJECT + b"since = 2020-01-01\n", "SC116", 9, "stores.main.since"),
        (PYPROJECT + b"[project]\n", "SC108", 9, "project"),
    ],
)
def test_pyproject_without_its_table(
    tmp_path: Path, text: bytes, code: str, line: int | None, path: str | None
) -> None:
    found = problem(write(tmp_path / "pyproject.toml", text), "pyproject.toml")
    assert (found.code, found.line, found.path) == (code, line, path)


def test_other_toml_files_give_the_whole(tmp_path: Path) -> None:
    assert list(read(write(tmp_path / "other.toml", b"[tool.storeconf]\n")).value) == ["tool"]
