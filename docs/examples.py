"""Runs the examples in documentation pages: the files that a section shows, and the commands in its console blocks.

A block that begins with ```` ```yaml file=NAME ```` is a file; in a ```` ```console ```` block each line that begins
with ``$ `` is a command, and what follows is its output. Every section has a directory of its own.
"""

from __future__ import annotations

import importlib
import itertools
import os
import re
import shlex
import subprocess
import sys
import tempfile
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import importlib_metadata
from click.testing import CliRunner

from storeconf.cli.app import storeconf

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["run_page", "sections"]

DIRECTORY = "/srv/shop"
"""What outputs call the directory that an example runs in."""

_HEADING = re.compile(r"^## .*$", re.MULTILINE)
_BLOCK = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def sections(page: str) -> list[str]:
    """The page in parts: what stands before the first heading of the second level, then each such section."""
    starts = [0, *(match.start() for match in _HEADING.finditer(page)), len(page)]
    return [page[start:end] for start, end in itertools.pairwise(starts)]


def run_page(page: str) -> str:
    """The page with the outputs that its commands really have."""
    return "".join(_run_section(section) for section in sections(page))


def _run_section(section: str) -> str:
    if "```console" not in section:
        return section
    with tempfile.TemporaryDirectory() as name, chdir(name):
        for match in _BLOCK.finditer(section):
            _, _, file = match["info"].partition(" file=")
            if file:
                path = Path(file)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(match["body"], encoding="utf-8")
        return _BLOCK.sub(lambda match: _run_block(match) if match["info"] == "console" else match[0], section)


def _run_block(match: re.Match[str]) -> str:
    lines = []
    for line in match["body"].splitlines():
        if line.startswith("$ "):
            lines += [line, *(shown.replace(os.getcwd(), DIRECTORY) for shown in _output(line[2:]))]
    shown = "\n".join(lines)
    return f"```console\n{shown}\n```"


def _output(command: str) -> list[str]:
    words = shlex.split(command)
    variables = {}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        variables[name] = value
    if words[0] != "storeconf" or "|" in words:
        return _shell(command)
    modules = [path.stem for path in Path.cwd().glob("*.py")]
    for module in modules:
        sys.modules.pop(module, None)
    with _surroundings(variables):
        result = CliRunner().invoke(storeconf, words[1:], prog_name="storeconf")
    for module in modules:
        sys.modules.pop(module, None)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return [line.rstrip() for line in result.output.splitlines()]


@contextmanager
def _surroundings(variables: dict[str, str]) -> Iterator[None]:
    """The variables of a command, and as installed plugins only those that its section shows."""
    real, path, environ = importlib_metadata.distributions, list(sys.path), dict(os.environ)

    def only_here(**_: object) -> Iterable[object]:
        return real(path=[os.getcwd()])

    for name in [name for name in os.environ if name.startswith("STORECONF_")]:
        del os.environ[name]
    os.environ.update(variables)
    sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    importlib_metadata.distributions = only_here  # type: ignore[assignment]  # what the scan calls
    try:
        yield
    finally:
        importlib_metadata.distributions = real
        sys.path[:] = path
        os.environ.clear()
        os.environ.update(environ)


def _shell(command: str) -> list[str]:
    """Run what is no command of ours alone, with our own Python and commands first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("STORECONF_")} | {"PATH": path}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True, env=environ)
    return done.stdout.splitlines()
