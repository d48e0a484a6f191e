"""Output of the commands: aligned columns, colours on terminals only, JSON for programs, messages and progress bars."""

from __future__ import annotations

import os
import re
import sys
from contextlib import contextmanager, redirect_stdout
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

import click

from storeconf._text import escaped
from storeconf.errors import StoreconfError, describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import timedelta

    from storeconf.config.secrets import Printer, Redacted, Redactor
    from storeconf.diagnostics import Diagnostic
    from storeconf.diagnostics.render import Format
    from storeconf.layout import Layout

__all__ = [
    "Progress",
    "ask",
    "be_quiet",
    "can_show",
    "columns",
    "commented",
    "complain",
    "contents",
    "counted",
    "data",
    "emit_json",
    "error",
    "escaped",
    "failing",
    "files_of",
    "fitted",
    "heading",
    "hide",
    "is_quiet",
    "json_data",
    "lines",
    "message",
    "on_terminal",
    "print_table",
    "printing_nothing_else",
    "problems",
    "progress",
    "readable_size",
    "readable_time",
    "stdout",
    "style",
    "terminal_width",
    "wants_color",
    "warning",
    "where",
    "wrapped",
    "write",
]

_STDOUT = "storeconf.stdout"
"""The stream for data, in the context of a call."""


@contextmanager
def printing_nothing_else() -> Iterator[None]:
    """Send the output of other code meanwhile, such as plugins while imported, to stderr: stdout is for data."""
    meta = click.get_current_context().find_root().meta
    meta[_STDOUT] = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        del meta[_STDOUT]


def stdout() -> TextIO | None:
    """The stream for data; None where it was closed."""
    context = click.get_current_context(silent=True)
    meta: dict[str, TextIO | None] = {} if context is None else context.find_root().meta
    return meta.get(_STDOUT, sys.stdout)


def on_terminal(stream: TextIO | None) -> bool:
    """Whether the stream is a terminal; it is None where it was closed."""
    return stream is not None and stream.isatty()


def wants_color(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal that may be coloured, or one that is not and shall be.

    NO_COLOR (https://no-color.org) wins over FORCE_COLOR (https://force-color.org).
    """
    if stream is None or os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return on_terminal(stream) and os.environ.get("TERM") != "dumb"


_NARROWEST: Final = 40
"""A terminal that has fewer columns breaks the lines as it likes."""


def terminal_width(stream: TextIO | None = None) -> int | None:
    """The columns of the terminal that the stream is, by default stdout; None if it is not one, or is too narrow."""
    stream = stdout() if stream is None else stream
    if stream is None or not on_terminal(stream):
        return None
    try:
        width = int(os.environ.get("COLUMNS", "")) or os.get_terminal_size(stream.fileno()).columns
    except ValueError:
        width = os.get_terminal_size(stream.fileno()).columns
    return width if width >= _NARROWEST else None


def can_show(text: str) -> bool:
    """Whether stdout's encoding has these characters."""
    try:
        text.encode(getattr(stdout(), "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def style(text: str, **how: Any) -> str:
    """Mark text up; `data` and `message` remove the marks if the stream is not a terminal."""
    return click.style(text, **how) if text else ""


def data(text: str = "") -> None:
    """Print to stdout a text whose values were masked one by one as it was dumped or described."""
    _to_stdout(_printer().data(text))


def contents(text: str) -> None:
    """Print the content of a store, which is never a setting, as it is; it may end its last line itself."""
    _to_stdout(_printer().stored(text), ends=text.endswith("\n"))


def lines(texts: Iterable[str]) -> None:
    """Print lines to stdout; nothing at all where there is none."""
    shown = "\n".join(texts)
    if shown:
        data(shown)


def print_table(rows: Iterable[Sequence[str]], *, indent: str = "") -> None:
    """Print rows of cells to stdout, aligned and fitted to the terminal."""
    lines(fitted(rows, terminal_width(), indent=indent))


def write(content: bytes) -> None:
    """Write bytes to stdout as they are."""
    stream = stdout()
    if stream is not None:
        stream.buffer.write(content)
        stream.buffer.flush()


def message(text: str, label: str = "", *, breaks: bool = False) -> None:
    """Print to stderr, unless only errors are wanted. ``label`` comes first, shown even if a secret contains it."""
    if not is_quiet():
        _to_stderr(_printer().message(text, label, width=terminal_width(sys.stderr) if breaks else None))


def ask(question: str, label: str) -> None:
    """Print to stderr, as `message` does, and leave room for the answer behind it."""
    _to_stderr(_printer().message(question, label), ends=True)


def _to_stdout(text: Redacted, *, ends: bool = False) -> None:
    stream = stdout()
    if stream is not None:  # click would take sys.stdout instead
        click.echo(text, file=stream, nl=not ends, color=wants_color(stream))


def _to_stderr(text: Redacted, *, ends: bool = False) -> None:
    click.echo(text, err=True, nl=not ends, color=wants_color(sys.stderr))


_QUIET = "storeconf.quiet"


def be_quiet() -> None:
    """Print nothing but errors to stderr in the rest of this command."""
    click.get_current_context().find_root().meta[_QUIET] = True


def is_quiet() -> bool:
    """Whether only errors are wanted."""
    context = click.get_current_context(silent=True)
    return context is not None and _QUIET in context.find_root().meta


def json_data(value: Any) -> None:
    """Print a value that was dumped or described to stdout, as JSON on several lines."""
    _to_stdout(_printer().json(value))


def emit_json(document: dict[str, Any], *, stored: bool = False) -> None:
    """Print a JSON document to stdout, with the version of its form; ``stored``: as `contents` does."""
    _to_stdout(_printer().json({"format": 1, **document}, stored=stored))


def where(layout: Layout) -> str:
    """The environment of a layout, for people."""
    return layout.environment or "no environment"


def heading(layout: Layout, subject: str | None = None) -> str:
    """The first line of the output: the environment, then the subject, by default the files of the layout."""
    name = style(where(layout), bold=True, underline=True)
    return f"{name}  {style(files_of(layout), dim=True) if subject is None else subject}"


def files_of(layout: Layout) -> str:
    """The files of a layout, lowest first."""
    return ", ".join(map(escaped, layout.files)) or "variables alone"


def counted(number: int, noun: str) -> str:
    """``1 key``, ``2 keys``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def readable_size(size: int) -> str:
    """``97.7 KiB``."""
    number = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{size} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def readable_time(span: timedelta) -> str:
    """A span by its two largest units: ``13d 23h``, ``4.2s``, ``0.8 ms``."""
    seconds = span.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms" if seconds >= 0.0001 else f"{seconds * 1_000_000:.0f} µs"
    if seconds < 60:
        return f"{seconds:.1f} s"
    parts: list[str] = []
    rest = round(seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, rest = divmod(rest, length)
        if number or parts:
            parts.append(f"{number}{unit}")
    return " ".join(part for part in parts[:2] if part[0] != "0")


def wrapped(text: str, width: int) -> list[str]:
    """A styled text in lines of at most ``width`` characters, broken between its parts, else between words."""
    lines = [""]
    for part in re.split(r"(?<=, )|(?<= > )|(?<=  )", text):
        for piece in [part] if _length(part) <= width else re.split(r"(?<= )", part):
            if lines[-1] and _length(lines[-1] + piece) > width:
                lines.append("")
            lines[-1] += piece
    return lines


def _length(text: str) -> int:
    return len(click.unstyle(text).rstrip())


def columns(rows: Iterable[Sequence[str]], *, gap: str = "  ") -> list[str]:
    """Align rows of (possibly styled) cells; the last column is as wide as it likes."""
    table = [list(row) for row in rows]
    widths = [
        max((len(click.unstyle(row[at])) for row in table if len(row) > at + 1), default=0)
        for at in range(max((len(row) for row in table), default=0))
    ]
    return [
        gap.join(
            cell + " " * (widths[at] - len(click.unstyle(cell))) if at + 1 < len(row) else cell
            for at, cell in enumerate(row)
        ).rstrip()
        for row in table
    ]


_PAGE: Final = 120
"""The width of output that is not printed on a terminal, for the comments of lines."""

_LEAST: Final = 20
"""A column that would be narrower is moved below the others."""


def commented(rows: Iterable[Sequence[str]], width: int | None) -> list[str]:
    """Align the comments of lines, their second cells, behind the longest line that is not most of the width."""
    table = [list(row) for row in rows]
    most = (width or _PAGE) * 2 // 3
    at = max((_length(row[0]) for row in table if len(row) > 1 and _length(row[0]) <= most), default=0)
    return [row[0] + " " * (at - _length(row[0])) + "  " + row[1] if len(row) > 1 else row[0] for row in table]


def fitted(rows: Iterable[Sequence[str]], width: int | None, *, indent: str = "") -> list[str]:
    """Align rows as `columns` does, in lines of at most ``width`` characters; None is without a limit.

    The last cell of a row is broken where the terminal ends. Where the cells before it leave too little room, all but
    the first are moved below that.
    """
    table = [list(row) for row in rows]
    aligned = columns(table)
    room = None if width is None else width - len(indent)
    if room is None or max(map(_length, aligned), default=0) <= room:
        return [(indent + line).rstrip() for line in aligned]
    heads = [line[:-1] for line in columns([[*row[:-1], "."] for row in table])]
    lengths = zip(map(_length, aligned), map(_length, heads), strict=True)
    if all(length <= room or room - start >= _LEAST for length, start in lengths):
        return [
            line
            for row, head in zip(table, heads, strict=True)
            for line in _hanging(row[-1] if row else "", indent + head, len(indent), room)
        ]
    below = iter(columns([row[1:] for row in table]))
    found = []
    for row, rest in zip(table, below, strict=True):
        found += [(indent + row[0]).rstrip()] if row else [""]
        found += _hanging(rest, f"{indent}      ", len(indent), room) if len(row) > 1 else []
    return found


def _hanging(text: str, head: str, indent: int, room: int) -> Iterator[str]:
    """The text behind the head, its further lines below its first."""
    start = len(click.unstyle(head))
    for part in wrapped(text, room + indent - start):
        yield (head + part).rstrip()
        head = " " * start


# ---------------------------------------------------------------------- messages

_PRINTER = "storeconf.printer"
"""Makes the texts that a command prints, in the context of its call; before a layout is read, it knows no secret."""


def _printer() -> Printer:
    from storeconf.config.secrets import Printer

    context = click.get_current_context(silent=True)
    meta: dict[str, Printer] = {} if context is None else context.find_root().meta
    return meta.setdefault(_PRINTER, Printer())


def hide(redact: Redactor) -> None:
    """Hide a layout's secrets in all further output of this command."""
    _printer().redactors.append(redact)


def complain(diagnostics: Sequence[Diagnostic]) -> None:
    """Show diagnostics to a person, on stderr."""
    diagnostics = [each for each in diagnostics if each.severity == "error" or not is_quiet()]
    if diagnostics:
        stream = sys.stderr
        _to_stderr(_printer().problems(diagnostics, color=wants_color(stream), width=terminal_width(stream)))


def problems(diagnostics: Sequence[Diagnostic], form: Format, layout: str | None) -> bool:
    """Print diagnostics to stdout, and return whether there was anything to print."""
    color = wants_color(stdout())
    if shown := _printer().problems(diagnostics, form, color=color, width=terminal_width(), layout=layout):
        _to_stdout(shown)
    return bool(shown)


def error(text: str, environment: str | None = None) -> None:
    """Print an error to stderr."""
    _labelled("error", "red", text, environment)


def warning(text: str, environment: str | None = None) -> None:
    """Print a warning to stderr."""
    if not is_quiet():
        _labelled("warning", "yellow", text, environment)


def _labelled(kind: str, color: str, text: str, environment: str | None) -> None:
    first = f"{environment}: " if environment is not None else ""
    label = f"{first}{style(kind, fg=color, bold=True)}: "
    width, taken = terminal_width(sys.stderr), len(click.unstyle(label))
    _to_stderr(_printer().message(text, label, width=width, taken=taken))


@contextmanager
def failing(environment: str | None) -> Iterator[None]:
    """Turn errors of stores into messages and the status 1."""
    try:
        yield
    except StoreconfError as failure:
        failures: list[BaseException] = [failure]
    except BaseExceptionGroup as group:
        ours, others = group.split(StoreconfError)
        if ours is None or others is not None:
            raise
        failures = list(_flat(ours))
    else:
        return
    for each in failures:
        error(describe(each), environment)
    raise SystemExit(1)


def _flat(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _flat(each)
        else:
            yield each


# ---------------------------------------------------------------------- progress


class Progress(Protocol):
    """Takes note of each step."""

    def update(self, n_steps: int) -> None:
        """So many more are done."""
        ...


class _Hidden:
    def update(self, n_steps: int) -> None:
        """Show nothing."""


@contextmanager
def progress(label: str, length: int | None, *, shown: bool, count: bool = True) -> Iterator[Progress]:
    """A bar on stderr, with the ``count`` of finished items; without a length it only shows activity."""
    if not shown or is_quiet():
        yield _Hidden()
        return
    named: Redacted = _printer().message(label)
    with click.progressbar(
        repeat(None) if length is None else None,
        length=length,
        label=named,
        file=sys.stderr,
        show_pos=count,
        color=wants_color(sys.stderr),
    ) as bar:
        yield bar
