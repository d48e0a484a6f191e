"""The command line: inspect a layout before it is deployed, and manage the data afterwards.

Data goes to stdout, messages go to stderr. Exit status: 0 success, 1 problems found, 2 bad usage.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line with the process's arguments, and exit."""
    try:
        from storeconf.cli.app import storeconf

        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # None where it is closed
                stream.reconfigure(errors="backslashreplace")
        storeconf(prog_name="storeconf")
    except KeyboardInterrupt:
        sys.exit(130)
