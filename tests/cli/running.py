"""Runs the command line in this process, or in one of its own where streams and terminals matter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from storeconf.cli.app import storeconf

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ROOT_COMMAND = [sys.executable, "-m", "storeconf"]


@dataclass(frozen=True)
class Done:
    """A finished command."""

    status: int
    out: str
    err: str
    raw: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def both(self) -> str:
        return self.out + self.err


def run(*arguments: str, stdin: bytes | None = None) -> Done:
    """Run a command in this process; an exception that gets out is the test's."""
    result = CliRunner().invoke(storeconf, arguments, input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr, result.stdout_bytes)


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STORECONF", "PYTEST"))}
    return {**kept, **(more or {})}


def process(*arguments: str, cwd: Path, environ: Mapping[str, str] | None = None, stdin: bytes | None = b"") -> Done:
    """Run a command in a process of its own."""
    done = subprocess.run(
        [*ROOT_COMMAND, *arguments],
        cwd=cwd,
        env=environment(environ),
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return Done(
        done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"), done.stdout
    )
