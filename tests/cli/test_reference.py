"""docs/reference/command-line.md names every command with every argument and option that it has, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from storeconf.cli.app import SECTIONS, storeconf

PAGE = (Path(__file__).parent.parent.parent / "docs/reference/command-line.md").read_text()
NAMES = [name for names in SECTIONS.values() for name in names]


def synopsis(name: str) -> str:
    """The command with its own options first, as a reader types it."""
    command = storeconf.get_command(click.Context(storeconf), name)
    assert command is not None
    arguments: list[str] = []
    own: list[str] = []
    common: list[str] = []
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            if parameter.hidden:
                continue
            flag = min(parameter.opts, key=len)
            takes = "" if parameter.is_flag else f" {parameter.metavar}"
            if isinstance(parameter.type, click.Choice):
                takes = f" {'|'.join(parameter.type.choices)}"
            (common if flag in ("-f", "--env", "--set", "-q") else own).append(f"[{flag}{takes}]")
        else:
            shown = parameter.metavar or str(parameter.name).upper()
            arguments.append(shown if parameter.required or shown.startswith("[") else f"[{shown}]")
    return " ".join(["storeconf", name, *arguments, *own, *common])


@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_how_each_command_is_called(name: str) -> None:
    section = re.search(rf"^### `{name}`\n\n`([^`]+)`\n", PAGE, re.MULTILINE)
    assert section is not None, f"the page has no section on {name}"
    assert section[1] == synopsis(name)


def test_the_page_has_no_other_commands_and_shows_each_at_work() -> None:
    found = re.findall(r"^### `([\w-]+)`$", PAGE, re.MULTILINE)
    assert sorted(found) == sorted(NAMES)
    for name in NAMES:
        section = PAGE[PAGE.index(f"### `{name}`") :].split("\n### ")[0].split("\n## ")[0]
        assert re.search(rf"^[$>] .*\bstoreconf {name}\b", section, re.MULTILINE), f"no session shows {name}"


def test_the_page_describes_the_options_that_all_share() -> None:
    for flag in ("-f FILE", "--env NAME", "--set PATH=VALUE", "-q", "--without-secrets", "--format NAME", "-h"):
        assert f"| `{flag}`" in PAGE
