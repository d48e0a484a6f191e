"""How far a long command has come, for one who looks at it on a terminal."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import click

from storeconf.cli.output import wants_color

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Progress", "progress"]


class Progress(Protocol):
    """What is told of each step."""

    def update(self, n_steps: int) -> None:
        """So many more are done."""
        ...


class _Nobody:
    def update(self, n_steps: int) -> None:
        """Nobody looks."""


@contextmanager
def progress(label: str, length: int | None, *, shown: bool, count: bool = True) -> Iterator[Progress]:
    """A bar on stderr, with the ``count`` of what is done; without a length it only says that something happens."""
    if not shown:
        yield _Nobody()
        return
    with click.progressbar(
        _endless() if length is None else None,
        length=length,
        label=label,
        file=sys.stderr,
        show_pos=count,
        color=wants_color(sys.stderr),
    ) as bar:
        yield bar


def _endless() -> Iterator[None]:
    while True:
        yield None
