"""Makes docs/terminal.svg, the picture in the README, from a real run: `python docs/terminal.py` (needs rich)."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
SHOP = HERE.parent / "examples" / "shop"
COMMANDS = ("storeconf tree --env development", "storeconf explain stores.main.type --env production")
BROKEN = "storeconf validate --env staging"


def on_a_terminal(command: str, directory: Path) -> str:
    """Run a command on a pseudo-terminal and return what it prints, colours included."""
    main, child = pty.openpty()
    environ = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TERM": "xterm-256color",
        "COLUMNS": "112",
    }
    environ.pop("NO_COLOR", None)
    process = subprocess.Popen(command, shell=True, cwd=directory, env=environ, stdout=child, stderr=child)
    os.close(child)
    printed = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not piece:
            break
        printed += piece
    os.close(main)
    process.wait()
    return printed.decode().replace("\r\n", "\n").rstrip("\n")


def main() -> None:
    console = Console(record=True, width=112, file=Path(os.devnull).open("w"), force_terminal=True)  # noqa: SIM115
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        layout = (SHOP / "storeconf.yaml").read_text()
        (directory / "storeconf.yaml").write_text(layout.replace("renew_on_get", "renew_on_gte", 1))
        runs = [*((command, SHOP) for command in COMMANDS), (BROKEN, directory)]
        for command, place in runs:
            console.print(Text(f"$ {command}", style="bold green"))
            console.print(Text.from_ansi(on_a_terminal(command, place)))
            console.print()
    picture = console.export_svg(title="storeconf")
    # A picture in a README fetches no fonts; the reader's own monospaced one will do.
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    (HERE / "terminal.svg").write_text(picture)


if __name__ == "__main__":
    main()
