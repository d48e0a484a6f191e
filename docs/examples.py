"""Runs the example in a page on a diagnostic: the files that it shows, and the commands in its console blocks.

A page is read from top to bottom, in an empty directory. A block with a title, as in
```` ```yaml title="storeconf.yaml" ````, is a file. In a ```` ```console ```` block each line that begins with ``$ ``
is a command, and what follows is its output.
"""

from __future__ import annotations

import importlib
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

from storeconf.catalog import _scan
from storeconf.cli.app import storeconf

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["run_page"]

DIRECTORY = "/srv/shop"
"""What outputs call the directory that an example runs in."""

_BLOCK = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')


def run_page(page: str) -> str:
    """The page with the outputs that its commands really have."""
    with tempfile.TemporaryDirectory() as name, chdir(name):
        return _BLOCK.sub(_run_block, page)


def _run_block(match: re.Match[str]) -> str:
    title = _TITLE.search(match["info"])
    if title is not None:
        path = Path(title[1])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(match["body"], encoding="utf-8")
    if match["info"] != "console":
        return match[0]
    lines = []
    for line in match["body"].splitlines():
        if line.startswith("$ "):
            lines += [line, *(shown.replace(str(Path.cwd()), DIRECTORY) for shown in _output(line[2:]))]
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
    """The variables of a command, and as installed plugins only those that its page shows."""
    real, path, environ = importlib_metadata.distributions, list(sys.path), dict(os.environ)

    def only_here(**_: object) -> Iterable[object]:
        return real(path=[str(Path.cwd())])

    for name in [name for name in os.environ if name.startswith("STORECONF_")]:
        del os.environ[name]
    os.environ.update(variables)
    sys.path.insert(0, str(Path.cwd()))
    importlib.invalidate_caches()
    _scan.cache_clear()  # as a process of its own would begin
    importlib_metadata.distributions = only_here  # type: ignore[assignment]  # what the scan calls
    try:
        yield
    finally:
        importlib_metadata.distributions = real
        sys.path[:] = path
        os.environ.clear()
        os.environ.update(environ)


def _shell(command: str) -> list[str]:
    """Run a command that is not only ours, with our own Python and commands first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("STORECONF_")} | {"PATH": path}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True, env=environ)
    return done.stdout.splitlines()
