"""Runs the command line in this process, or in one of its own where streams and terminals matter."""

from __future__ import annotations

import json
import os
import pty
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

# Who runs the tests in the background ignores interruptions, and children inherit that.
INTERRUPTIBLE = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.executable, [sys.executable, '-m', 'storeconf', *sys.argv[1:]])"
)

# Makes the terminal that is its stdin the one that interrupts it.
LAUNCHER = f"import os; os.login_tty(0); {INTERRUPTIBLE}"


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
        done.returncode,
        done.stdout.decode(errors="replace"),
        done.stderr.decode(errors="replace"),
        done.stdout,
    )


def on_terminal(
    *arguments: str, cwd: Path, prompt: str = "", answer: bytes = b"", width: int = 120, **variables: str
) -> Done:
    """Run a command with a terminal as stdin, stdout and stderr; answer once it has asked."""
    leader, follower = pty.openpty()
    shown = b""
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, *arguments],
            cwd=cwd,
            env=environment({"TERM": "xterm-256color", "COLUMNS": str(width), **variables}),
            stdin=follower,
            stdout=follower,
            stderr=follower,
        )
        os.close(follower)
        while True:
            try:
                more = os.read(leader, 65536)
            except OSError:  # how Linux tells that nobody holds the other end any more
                break
            if not more:
                break
            shown += more
            if answer and prompt.encode() in shown:
                os.write(leader, answer)
                answer = b""
        status = child.wait(30)
    finally:
        os.close(leader)
    return Done(status, shown.decode(errors="replace").replace("\r\n", "\n"), "")
