"""Completion in the shells themselves: what stands on the line, or below it, after the Tab key was pressed."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.running import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

LAYOUT = """
stores:
  main: {type: memory}
  sessions: {parent: main}
  uploads: {type: file, path: var}
environments: {development: {}, production: {}}
"""
# How each starts without anybody's settings, and what its users write there.
SHELLS = {
    "bash": (["--norc", "--noprofile", "-i"], 'PS1="> "; eval "$(storeconf completion bash)"'),
    "zsh": (["-f"], 'PS1="> "; autoload -Uz compinit; compinit -u; eval "$(storeconf completion zsh)"'),
    "fish": (["--no-config"], "storeconf completion fish | source"),
}
ESCAPES = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[0-9;?<>=]*[ -/]*[@-~]|\x1b[()][0AB]|\x1b[=>78cMH]|[\x00\x07\x0f]"
)
# Makes the terminal that is its stdin the one that controls it.
LAUNCHER = "import os, sys; os.login_tty(0); os.execvp(sys.argv[1], sys.argv[1:])"
WAIT = 60  # seconds; a Tab is answered by a process of Python


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, shell: str, directory: Path) -> None:
        leader, follower = pty.openpty()
        fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 150, 0, 0))
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        arguments, self.setup = SHELLS[shell]
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, shell, *arguments],
            cwd=directory,
            env=environment({"PATH": path, "HOME": str(directory), "TERM": "xterm", "LC_ALL": "C.UTF-8"}),
            stdin=follower, stdout=follower, stderr=follower,
        )  # fmt: skip
        os.close(follower)
        self.leader = leader
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self.leader, text.encode())

    def wait_for(self, *texts: str) -> str:
        """Everything shown since the last call, once all texts are in it, without what moves the cursor."""
        end = time.monotonic() + WAIT
        while not all(text in ESCAPES.sub("", self.shown) for text in texts):
            assert time.monotonic() < end, f"{texts} not in {ESCAPES.sub('', self.shown)!r}"
            if select.select([self.leader], [], [], 0.1)[0]:
                new = os.read(self.leader, 65536).decode(errors="replace")
                if "\x1b[c" in new or "\x1b[0c" in new:  # fish asks what the terminal can do
                    self.type("\x1b[?62;c")
                self.shown += new
        found, self.shown = ESCAPES.sub("", self.shown), ""
        return found

    def run(self, command: str) -> None:
        """Run a command, and wait until it has ended."""
        self.type(f"{command}; echo en''ded\r")
        self.wait_for("ended")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.leader)


@pytest.fixture(scope="module", params=SHELLS)
def terminal(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    directory = tmp_path_factory.mktemp(request.param)
    (directory / "storeconf.yaml").write_text(LAYOUT)
    (directory / "other.yaml").write_text("stores: {elsewhere: {type: memory}}\n")
    opened = Terminal(request.param, directory)
    try:
        opened.run(opened.setup)
        yield opened
    finally:
        opened.close()


@pytest.mark.parametrize(
    ("begun", "completed"),
    [
        ("storeconf vali", "validate"),
        ("storeconf validate --stri", "--strict"),
        ("storeconf tree --env prod", "production"),
        ("storeconf tree --env=prod", "--env=production"),
        ("storeconf get sess", "sessions"),
        ("storeconf get -f other.yaml els", "elsewhere"),
        ("storeconf tree --file=oth", "--file=other.yaml"),
        ("storeconf ping --set stores.main.max_entries=3 up", "uploads"),
        ("storeconf copy production:se", "production:sessions"),
        ("storeconf diff deve", "development"),
        ("storeconf diff oth", "other.yaml"),
        ("storeconf validate oth", "other.yaml"),
        ("storeconf explain stores.uploads.dura", "stores.uploads.durability"),
        ("storeconf explain SC81", "SC810"),
        ("storeconf show --set stores.uploads.dura", "stores.uploads.durability="),
        ("storeconf completion zs", "zsh"),
    ],
)
def test_tab_completes_a_word(terminal: Terminal, begun: str, completed: str) -> None:
    terminal.type(f"{begun}\t")
    word = begun.rpartition(" ")[2]
    terminal.wait_for(begun[-5:], completed.removeprefix(word))
    terminal.type("\x15")  # clears the line
    terminal.run("true")


def test_tab_lists_what_is_possible(terminal: Terminal) -> None:
    terminal.type("storeconf diff \t\t")
    terminal.wait_for("development", "production")
    terminal.type("\x03")
    terminal.type("\x15")
    terminal.run("true")
