"""`storeconf init`, `schema`, `plugins` and `new-plugin`."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tomllib
from importlib import import_module
from typing import TYPE_CHECKING

import jsonschema
import pytest
import yaml

from storeconf.cli.authoring import STARTERS
from storeconf.layout import check_layout, read_layout
from tests.cli.running import run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["storeconf.yaml", "storeconf.yml", "storeconf.toml", "stores.yaml", "new.TOML"])
def test_the_starter_is_without_a_fault(name: str, directory: Path) -> None:
    done = run("init", name)
    assert (done.status, done.out) == (0, "")
    assert done.err.startswith(f"wrote {name}; next: ")
    report = check_layout(name, all_environments=True, environ={})
    assert report.diagnostics == ()
    assert report.environments == ("development", "production")
    named = () if name.startswith("storeconf") else ("-f", name)
    assert run("validate", *named).status == 0
    assert run("tree", "--env", "development", *named).err == ""


def test_the_file_can_be_named_as_everywhere(directory: Path) -> None:
    assert run("init", "-f", "stores.yaml").err.startswith("wrote stores.yaml; ")
    assert (directory / "stores.yaml").read_text() == STARTERS[".yaml"]
    done = run("init", "one.yaml", "-f", "two.yaml")
    assert (done.status, done.err.splitlines()[-1]) == (2, "Error: give the file as argument or with -f, not both")


def test_the_next_command_that_it_names_works(directory: Path) -> None:
    for arguments in (["init"], ["init", "stores.toml"]):
        command = run(*arguments).err.partition("next: ")[2].split()
        assert command[0] == "storeconf"
        assert run(*command[1:]).status == 0


def test_both_starters_are_the_same_layout(directory: Path) -> None:
    layouts = []
    for suffix in (".yaml", ".toml"):
        run("init", f"one{suffix}")
        layouts.append(read_layout(f"one{suffix}", environment="production", environ={"VALKEY_URL": "valkey://h"}))
    assert layouts[0] == layouts[1]
    assert layouts[0].plan() == layouts[1].plan()


def test_no_file_is_overwritten(directory: Path) -> None:
    (directory / "storeconf.yaml").write_text("mine")
    done = run("init")
    assert (done.status, done.err) == (1, "error: storeconf.yaml exists; nothing was written\n")
    assert (directory / "storeconf.yaml").read_text() == "mine"
    (directory / "link.yaml").symlink_to("nowhere")
    assert run("init", "link.yaml").status == 1
    assert not (directory / "nowhere").exists()


def test_no_second_layout_is_written_beside_one_that_is_found(directory: Path) -> None:
    (directory / "pyproject.toml").write_text("[tool.storeconf]\nstores = {}\n")
    done = run("init")
    assert done.status == 1
    assert "pyproject.toml already exists" in done.err
    assert not (directory / "storeconf.yaml").exists()
    assert run("init", "another.yaml").status == 0


def test_a_place_that_can_not_be_written_is_a_message(directory: Path) -> None:
    done = run("init", "missing/storeconf.yaml")
    assert done.status == 1
    assert done.err == "error: missing/storeconf.yaml: No such file or directory\n"


def test_the_schema_accepts_the_starter_and_refuses_nonsense() -> None:
    schema = json.loads(run("schema").out)
    validator = jsonschema.Draft7Validator(schema)
    assert list(validator.iter_errors(yaml.safe_load(STARTERS[".yaml"]))) == []
    assert list(validator.iter_errors({"stores": {"a": {"type": "memory", "nonsense": 1}}}))


@pytest.mark.parametrize("command", ["schema", "plugins"])
def test_what_is_about_no_layout_takes_the_common_options_all_the_same(command: str) -> None:
    done = run(command, "-f", "nowhere.yaml", "--env", "nowhere", "--set", "stores.main.db=3")
    assert done == run(command)
    assert done.status == 0


def test_plugins_are_listed_with_what_they_can_do() -> None:
    done = run("plugins")
    assert (done.status, done.err) == (0, "")
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0] == ["backend"]
    assert lines[1][:2] == ["memory", "built-in"]
    assert lines[1][-4:] == ["not", "persistent,", "not", "shared"]
    assert next(line for line in lines if line[:1] == ["file"])[-2:] == ["persistent,", "shared"]
    listed = run("plugins", "--format", "json").json["plugins"]
    assert {"part": "backend", "name": "memory", "state": "built-in"}.items() <= listed[0].items()
    assert listed[0]["capabilities"]["atomic"] == ["add", "compare_and_set", "increment", "pop", "renew", "touch"]


BAD = """
[storeconf.backends]
memory = bad_plugin:Anything
broken = no_such_module_at_all:Thing
[storeconf.middleware]
odd = json:loads
"""


def test_bad_plugins_are_listed_with_the_reason(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = directory / "bad-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad\nVersion: 1\n")
    (info / "entry_points.txt").write_text(BAD)
    monkeypatch.syspath_prepend(str(directory))
    listed = run("plugins", "--format", "json").json["plugins"]
    states = {(each["name"], each["distribution"]): (each["state"], each["reason"]) for each in listed}
    assert states["memory", "bad"][0] == "conflict"
    assert "can't be replaced" in states["memory", "bad"][1]
    assert states["broken", "bad"][0] == "broken"
    assert "no_such_module_at_all" in states["broken", "bad"][1]
    assert states["odd", "bad"][0] == "broken"
    text = run("plugins")
    assert text.status == 0
    assert "no_such_module_at_all" in text.out
    assert "broken" not in run("schema").out
    monkeypatch.setenv("STORECONF_DISABLE_PLUGINS", "bad")
    listed = run("plugins", "--format", "json").json["plugins"]
    assert {each["state"] for each in listed if each["name"] == "broken"} == {"disabled"}


@pytest.mark.parametrize("arguments", [("schema",), ("plugins", "--format", "json"), ("validate", "--format", "json")])
def test_what_a_plugin_prints_while_it_is_imported_goes_to_stderr(
    arguments: tuple[str, ...], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = directory / "chatty-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: chatty\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[storeconf.backends]\nchatty = chatty_plugin:Chatty\n")
    (directory / "chatty_plugin.py").write_text("print('imported')\nChatty = None\n")
    (directory / "storeconf.yaml").write_text("stores: {main: {type: chatty}}")
    monkeypatch.syspath_prepend(str(directory))
    monkeypatch.delitem(sys.modules, "chatty_plugin", raising=False)
    done = run(*arguments)
    assert done.json
    assert done.err.startswith("imported\n")


def test_a_new_plugin_works_at_once(directory: Path) -> None:
    """Its whole suite is run where the documentation is tested."""
    done = run("new-plugin", "my-db")
    assert (done.status, done.out) == (0, "")
    assert done.err.startswith("wrote storeconf-my-db; next: cd storeconf-my-db; ")
    plugin = directory / "storeconf-my-db"
    settings = tomllib.loads((plugin / "pyproject.toml").read_text())
    assert settings["project"]["entry-points"]["storeconf.backends"] == {"my-db": "storeconf_my_db:MyDbBackend"}
    for path in plugin.rglob("*"):
        assert "plugin" not in path.name
        assert not path.is_file() or "lugin_name" not in path.read_text()
    few = "get_delete or atomic_operations_between or fork or many_keys or test_increment"
    done_tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:valkey", "-p", "no:randomly", "-k", few],
        cwd=plugin,
        env={**os.environ, "PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done_tests.returncode == 0, done_tests.stdout


def test_what_a_new_plugin_can_not_read_counts_as_missing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("new-plugin", "my-db").status == 0
    monkeypatch.syspath_prepend(str(directory / "storeconf-my-db/src"))
    file = directory / "data.json"
    entries = {"::value": ["not base64", None], "::expiry": ["dg==", "soon"], "::pair": 3, "::whole": ["dg==", None]}

    async def use() -> None:
        async with import_module("storeconf_my_db").MyDbStore(file) as store:
            file.write_text(json.dumps(entries))
            assert await store.get_many(["value", "expiry", "pair", "whole"]) == {"whole": b"v"}
            assert [key async for key in store.keys()] == ["whole"]
            file.write_text(json.dumps(entries)[:40])
            assert await store.get("whole") is None
            await store.set("whole", b"w")
            assert await store.get("whole") == b"w"

    asyncio.run(use())


def test_names_and_folders_that_a_new_plugin_can_not_have(directory: Path) -> None:
    for name in ("My", "a_b", "-a", "a--b", "", "1a", "../a", "memory", "redis"):
        done = run("new-plugin", "--", name)
        assert (done.status, list(directory.iterdir())) == (2, []), name
    (directory / "storeconf-kept").mkdir()
    done = run("new-plugin", "storeconf-kept")
    assert (done.status, done.err) == (1, "error: storeconf-kept exists; nothing was written\n")
    assert list((directory / "storeconf-kept").iterdir()) == []
