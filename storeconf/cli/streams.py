"""Layouts that come through a pipe: `-` for stdin, `/dev/stdin`, and what a shell's `<(command)` names."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from storeconf.config.document import MAX_BYTES
from storeconf.config.specs import Stream

if TYPE_CHECKING:
    from storeconf.config.language import Format

__all__ = ["opened"]

_STDIN: Final = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
_TABLE: Final = re.compile(rb"^\[\[?[\w.\"'-]+\]\]?\s*(?:#.*)?$", re.MULTILINE)


def opened(name: str | None) -> str | Stream | None:
    """The name of a file as it is, or what a pipe gave: that can be read once, so it belongs to the command's call."""
    is_stdin = name in _STDIN
    if name is None or not (is_stdin or _is_pipe(name)):
        return name
    if is_stdin and sys.stdin is None:
        raise click.UsageError("stdin is closed")
    shown = "<stdin>" if is_stdin else name
    read: dict[str, Stream] = click.get_current_context().find_root().meta.setdefault("storeconf.streams", {})
    if shown not in read:
        with nullcontext(sys.stdin.buffer) if is_stdin else Path(name).open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        read[shown] = Stream(data, _format_of(data), shown)
    return read[shown]


def _is_pipe(name: str) -> bool:
    try:
        return Path(name).is_fifo()
    except (OSError, ValueError):
        return False


def _format_of(data: bytes) -> Format:
    """The format that the text is written in: nothing names it. What no format allows is most likely YAML."""
    try:
        text = data.decode()
    except ValueError:
        return "yaml"
    if text.lstrip().startswith('{"'):
        return "json"
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        pass
    else:
        return "json"
    try:
        found = tomllib.loads(text)
    except (ValueError, RecursionError):
        return "toml" if _TABLE.search(data) else "yaml"
    return "toml" if found else "yaml"
