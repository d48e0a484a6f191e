"""What commands print for the example shop; `python -m tests.cli.golden` writes it anew, to be read and kept."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from tests.cli.running import run

DIRECTORY = Path(__file__).absolute().parent / "golden"
SHOP = Path(__file__).absolute().parent.parent.parent / "examples/shop"

COMMANDS = {
    "tree-development.txt": ("tree", "--env", "development"),
    "tree-production.txt": ("tree", "--env", "production"),
    "tree-production.json": ("tree", "--env", "production", "--format", "json"),
    "show-production.yaml": ("show", "--env", "production"),
    "show-production.toml": ("show", "--env", "production", "--format", "toml"),
    "show-production.json": ("show", "--env", "production", "--format", "json"),
    "show-production-origins.yaml": ("show", "--env", "production", "--origins"),
    "show-production-origins.toml": ("show", "--env", "production", "--origins", "--format", "toml"),
    "explain-type.txt": ("explain", "stores.main.type", "--env", "production"),
    "explain-type.json": ("explain", "stores.main.type", "--env", "production", "--format", "json"),
    "explain-removed.txt": ("explain", "stores.main.max_size", "--env", "production"),
    "explain-default.txt": ("explain", "stores.main.command_timeout", "--env", "production"),
    "explain-inherited.txt": ("explain", "stores.response_cache.middleware.ttl.max", "--env", "production"),
    "explain-mapping.txt": ("explain", "stores.main", "--env", "production"),
    "explain-override.txt": (
        "explain",
        "stores.main.command_timeout",
        "--env",
        "staging",
        "--set",
        "stores.main.command_timeout=3",
    ),
    "diff.txt": ("diff", "development", "production"),
    "diff.json": ("diff", "development", "production", "--format", "json"),
    "graph-production.mmd": ("graph", "--env", "production"),
    "graph-production.dot": ("graph", "--env", "production", "--format", "dot"),
}


def produce() -> dict[str, str]:
    """The outputs by name, with the place of the layout taken out; the working directory is empty and a real path."""
    shutil.copy(SHOP / "storeconf.yaml", ".")
    found = {}
    for name, arguments in COMMANDS.items():
        done = run(*arguments)
        assert done.err == "", f"{name}: {done.err}"
        found[name] = done.out.replace(str(Path.cwd()), "<here>")
    return found


def main() -> None:
    """Write everything."""
    DIRECTORY.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, contextlib.chdir(Path(directory).resolve()):
        for name, text in produce().items():
            (DIRECTORY / name).write_text(text)


if __name__ == "__main__":
    main()
