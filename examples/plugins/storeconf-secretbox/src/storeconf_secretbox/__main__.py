"""`python -m storeconf_secretbox key` makes a key; `… encrypt NAME` puts what stdin holds into the file."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from storeconf_secretbox import DEFAULT_FILE, Box, make_key


def main() -> int:
    """Run one command."""
    parser = argparse.ArgumentParser("python -m storeconf_secretbox")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("key", help="print a new key for SECRETBOX_KEY")
    encrypt = commands.add_parser("encrypt", help="encrypt what stdin holds, less one final newline")
    encrypt.add_argument("name")
    encrypt.add_argument("-f", "--file", type=Path, default=Path(DEFAULT_FILE))
    arguments = parser.parse_args()
    if arguments.command == "key":
        print(make_key())
        return 0
    try:
        Box(arguments.file).write(arguments.name, sys.stdin.read().removesuffix("\n"), os.environ)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
