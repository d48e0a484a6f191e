"""Secrets in, secrets out, and every way in which that can fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from storeconf_secretbox import Box, SecretBox, make_key

import storeconf
from storeconf import ResolveContext

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    environ = {"SECRETBOX_KEY": make_key()}
    Box(tmp_path / "secrets.box").write("db_password", "hünter2 $@:/", environ)
    Box(tmp_path / "secrets.box").write("other", "", environ)
    return environ


def resolve(argument: str, directory: Path, environ: dict[str, str]) -> str:
    return SecretBox().resolve(argument, ResolveContext(environ, directory))


def test_what_was_encrypted_comes_back(tmp_path: Path, environ: dict[str, str]) -> None:
    assert resolve("db_password", tmp_path, environ) == "hünter2 $@:/"
    assert resolve("secrets.box#other", tmp_path, environ) == ""
    assert "nter2" not in (tmp_path / "secrets.box").read_text()
    assert [each.name for each in tmp_path.iterdir()] == ["secrets.box"]


@pytest.mark.parametrize("argument", ["nobody", "nowhere.box#db_password"])
def test_what_is_missing_is_a_lookup_error(tmp_path: Path, environ: dict[str, str], argument: str) -> None:
    with pytest.raises(LookupError):
        resolve(argument, tmp_path, environ)


def test_a_wrong_key_is_an_error_and_no_default(tmp_path: Path, environ: dict[str, str]) -> None:
    for wrong, match in [
        ({}, "is not set"),
        ({"SECRETBOX_KEY": "x"}, "32 bytes"),
        ({"SECRETBOX_KEY": make_key()}, "another"),
    ]:
        with pytest.raises(ValueError, match=match):
            resolve("db_password", tmp_path, wrong)


def test_a_value_is_bound_to_its_name(tmp_path: Path, environ: dict[str, str]) -> None:
    file = tmp_path / "secrets.box"
    content = json.loads(file.read_text())
    content["secrets"]["other"] = content["secrets"]["db_password"]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="can't be decrypted"):
        resolve("other", tmp_path, environ)


@pytest.mark.parametrize("text", ["{", "[]", '{"secretbox": 2, "secrets": {}}'])
def test_another_file_is_refused(tmp_path: Path, environ: dict[str, str], text: str) -> None:
    (tmp_path / "secrets.box").write_text(text)
    with pytest.raises(ValueError, match=r"secretbox|not valid JSON"):
        resolve("db_password", tmp_path, environ)


def test_a_layout_names_it(tmp_path: Path, environ: dict[str, str]) -> None:
    """The reference stands in one directory, and the process works in another."""
    (tmp_path / "storeconf.yaml").write_text(
        "stores:\n"
        "  main: {type: redis, url: redis://x.invalid, password: '${secretbox:db_password}', namespace: shop}\n"
        "  plain: {type: memory, description: '${secretbox:nobody:-a default}'}\n"
    )
    layout = storeconf.read_layout(tmp_path / "storeconf.yaml", environ=environ)
    assert layout.stores["plain"].description == "a default"
    assert "nter2" not in repr(layout.dump())
    with pytest.raises(storeconf.ConfigError, match="SECRETBOX_KEY is not set") as caught:
        storeconf.read_layout(tmp_path / "storeconf.yaml", environ={})
    assert caught.value.diagnostics[0].line == 2


def test_the_command(tmp_path: Path) -> None:
    def run(*arguments: str, text: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "storeconf_secretbox", *arguments]
        return subprocess.run(
            command,
            input=text,
            cwd=tmp_path,
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            check=False,
        )

    key = run("key").stdout.strip()
    assert run("encrypt", "a", text="s3cret\n", SECRETBOX_KEY=key).returncode == 0
    assert resolve("a", tmp_path, {"SECRETBOX_KEY": key}) == "s3cret"
    failed = run("encrypt", "a", text="s3cret\n", SECRETBOX_KEY="")
    assert failed.returncode == 1
    assert "SECRETBOX_KEY is not set" in failed.stderr
