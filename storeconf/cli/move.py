"""Commands that move data between stores: copy, dump, restore."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from storeconf.cli.app import Source, format_option, on_layout, readable, run, store_of, warn_of
from storeconf.cli.completion import complete_endpoints, complete_files, complete_stores
from storeconf.cli.output import (
    counted,
    emit_json,
    error,
    escaped,
    failing,
    message,
    on_terminal,
    progress,
    stdout,
    warning,
    where,
)
from storeconf.transfer import (
    Endpoint,
    TransferResult,
    copy,
    dump,
    lines_of,
    new_file,
    overlap,
    put,
    restore,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from storeconf.layout import Layout
    from storeconf.store import Store
    from storeconf.transfer import Failure

__all__ = ["copy_command", "dump_command", "move_command", "restore_command"]


# ---------------------------------------------------------------------- copy


@click.command("copy")
@click.argument("src", shell_complete=complete_endpoints)
@click.argument("dst", shell_complete=complete_endpoints)
@click.option("--overwrite", is_flag=True, help="Replace what DST has under the same keys, instead of keeping it.")
@click.option("--dry-run", is_flag=True, help="Write nothing; count what would be copied.")
@format_option("text", "json")
@on_layout()
def copy_command(source: Source, src: str, dst: str, overwrite: bool, dry_run: bool, form: str) -> None:
    """Copy a store into another one.

    With the namespaces below it, and with the expiry that is left. SRC and DST are stores; ENV:STORE is one in another
    environment. Existing entries of DST are kept, so a copy that ended early is continued by starting it again. The
    status is 1 if some could not be copied.
    """
    start, goal = _two_endpoints(source, src, dst)
    if overlap(start, goal):
        error(f"source and destination overlap: {src!r}, {dst!r}", goal.layout.environment)
        raise SystemExit(1)
    report = _MoveReport(
        command="copy",
        endpoints=(start, goal),
        verbs=("would copy", "skip") if dry_run else ("copied", "skipped"),
        about=f"from {start.label!r} to {goal.label!r}",
        if_early="started again, it begins again" if overwrite else "started again, it continues",
        more={
            "from": {"environment": start.layout.environment, "store": start.name},
            "to": {"environment": goal.layout.environment, "store": goal.name},
            "dry_run": dry_run,
        },
        form=form,
    )

    async def work() -> None:
        shown = on_terminal(sys.stderr)
        with progress(f"{src} → {dst}", await start.count() if shown else None, shown=shown) as bar:
            await copy(start, goal, overwrite=overwrite, dry_run=dry_run, result=report.result, on_progress=bar.update)

    _carry_out(report, work)
    _warn_of_unlisted_namespaces(start)


def _two_endpoints(source: Source, src: str, dst: str) -> tuple[Endpoint, Endpoint]:
    (first, one), (second, other) = (_parsed(text, source.environment) for text in (src, dst))
    layouts = source.layouts(first) * 2 if first == second else source.layouts(first, second)
    start = _endpoint(layouts[0], one)
    _require_listing(start)
    goal = _endpoint(layouts[1], other, beside=start)
    if start.layout is not goal.layout:
        start.name_with_environment()
        goal.name_with_environment()
    return start, goal


def _endpoint(layout: Layout, name: str, beside: Endpoint | None = None) -> Endpoint:
    with readable(layout):
        endpoint = Endpoint(layout, name, beside=beside)
    warn_of(layout, name, endpoint.registry, endpoint.store)
    return endpoint


def _parsed(text: str, environment: str | None) -> tuple[str | None, str]:
    """The environment and the name in ``ENV:STORE`` or ``STORE``."""
    before, colon, after = text.partition(":")
    if colon and not (before and after):
        raise click.UsageError(f"{text!r} is neither STORE nor ENV:STORE")
    return (before, after) if colon else (environment, text)


# ---------------------------------------------------------------------- move


@click.command("move")
@click.argument("store", shell_complete=complete_stores)
@format_option("text", "json")
@on_layout()
def move_command(source: Source, store: str, form: str) -> None:
    """Carry over everything that `moved_from` has not carried over yet, while applications use the store.

    With the namespaces below it. Afterwards the middleware can be removed. The status is 1 if anything remains in the
    old store, or may remain because that can't list its namespaces.
    """
    from storeconf.middleware import StoreWrapper
    from storeconf.middleware.moved_from import MovedFromStore

    layout = source.layout()
    registry, found = store_of(layout, store)
    link: Store = found
    while isinstance(link, StoreWrapper) and not isinstance(link, MovedFromStore):
        link = link.wrapped
    if not isinstance(link, MovedFromStore):
        error(f"{store!r} has no middleware moved_from", layout.environment)
        raise SystemExit(1)
    if link.prepare:
        error(f"moved_from of {store!r} only prepares; switch prepare off everywhere first", layout.environment)
        raise SystemExit(1)

    async def work() -> tuple[int, int]:
        moved = await link.tidy_all()
        return moved, await link.remaining()

    moved, left = run(layout, registry, work)
    if form == "json":
        result = {"store": store, "from": link.old.name, "moved": moved, "remaining": left}
        emit_json({"environment": layout.environment, "move": [result]})
    else:
        text = f"{counted(moved, 'key')} moved from {link.old.name!r} to {store!r}, {left} remaining"
        message(text, f"{where(layout)}: ")
    if not link.lists_namespaces:
        text = f"{link.old.name!r} can't list its namespaces: what is in those below it was not moved; keep moved_from"
        warning(text, layout.environment)
    if left or not link.lists_namespaces:
        raise SystemExit(1)


# ---------------------------------------------------------------------- dump


@click.command("dump")
@click.argument("store", shell_complete=complete_stores)
@click.argument("dumped", default="-", metavar="[FILE]", shell_complete=complete_files)
@on_layout()
def dump_command(source: Source, store: str, dumped: str) -> None:
    """Write a store to a file, or to stdout.

    With the namespaces below it, and with the expiry of each key, as lines of JSON that `restore` reads. Values are as
    applications see them, also where the store encrypts them. FILE must not exist yet; only you may read it. It appears
    when the dump is complete: one that ends early leaves a file beside it whose name ends in `.partial`. The status is
    1 when something could not be read.
    """
    start = _endpoint(source.layout(), store)
    _require_listing(start)
    report = _MoveReport(
        command="dump",
        endpoints=(start,),
        verbs=("dumped", "skipped"),
        about=f"of {start.name!r}",
        if_early="the dump is truncated, as `restore` will report",
    )
    with _output(dumped) as (stream, written):
        if written != dumped:
            report.if_early = f"what was dumped is in {escaped(written)}, which `restore` reads"

        async def work() -> None:
            # Where the lines go to the terminal, a bar would be among them.
            shown = on_terminal(sys.stderr) and not stream.isatty()
            with progress(escaped(dumped), await start.count() if shown else None, shown=shown) as bar:
                await dump(start, lambda lines: put(stream, lines), result=report.result, on_progress=bar.update)

        _carry_out(report, work)
    _warn_of_unlisted_namespaces(start)
    if encrypted := ", ".join(start.encrypted()):
        warning(f"values of {encrypted} are encrypted in the store, and not in the dump", start.layout.environment)


@contextmanager
def _output(file: str) -> Iterator[tuple[BinaryIO, str]]:
    """The stream that the dump is written to, and the name of its file until it is complete."""
    if file == "-":
        shown = stdout()
        if shown is None:
            raise click.UsageError("stdout is closed")
        shown.flush()
        yield shown.buffer, file
        shown.buffer.flush()
        return
    try:
        with new_file(file) as output:
            yield output
    except FileExistsError as failure:
        late = failure.filename2 == file  # it was made while the dump was written
        about = f" by now; the dump is in {escaped(failure.filename)}" if late else "; nothing was written"
        error(f"{escaped(file)} exists{about}")
        raise SystemExit(1) from None


# ---------------------------------------------------------------------- restore


@click.command("restore")
@click.argument("store", shell_complete=complete_stores)
@click.argument("dumped", default="-", metavar="[FILE]", shell_complete=complete_files)
@click.option("--overwrite", is_flag=True, help="Replace what STORE has under the same keys, instead of keeping it.")
@click.option("--dry-run", is_flag=True, help="Write nothing; check the dump, and count what would be restored.")
@format_option("text", "json")
@on_layout()
def restore_command(source: Source, store: str, dumped: str, overwrite: bool, dry_run: bool, form: str) -> None:
    """Read a dump from a file, or from stdin, into a store.

    Entries that have expired since are left out. Existing entries of STORE are kept, so a restore that ended early is
    continued by starting it again. Damaged lines are reported and skipped. The status is 1 if some could not be
    restored, or if the dump is truncated.
    """
    with _input(dumped) as stream:
        goal = _endpoint(source.layout(), store)
        report = _MoveReport(
            command="restore",
            endpoints=(goal,),
            verbs=("would restore", "skip") if dry_run else ("restored", "skipped"),
            about=f"to {goal.name!r}",
            if_early="started again, it begins again" if overwrite else "started again, it continues",
            file="stdin" if dumped == "-" else escaped(dumped),
            more={"store": goal.name, "dry_run": dry_run},
            form=form,
        )

        async def work() -> None:
            with progress(f"→ {goal.name}", _size(stream), shown=on_terminal(sys.stderr), count=False) as bar:
                async with aclosing(lines_of(stream)) as lines:
                    await restore(
                        lines, goal, overwrite=overwrite, dry_run=dry_run, result=report.result, on_progress=bar.update
                    )

        _carry_out(report, work)


@contextmanager
def _input(file: str) -> Iterator[BinaryIO]:
    if file != "-":
        with Path(file).open("rb", buffering=0) as stream:
            yield stream
    elif sys.stdin is None or on_terminal(sys.stdin):
        raise click.UsageError("give FILE, or a dump on stdin")
    else:
        yield sys.stdin.buffer


def _size(stream: BinaryIO) -> int | None:
    """The bytes of a file; that of a pipe is not known."""
    try:
        about = os.fstat(stream.fileno())
    except OSError:
        return None
    return about.st_size if stat.S_ISREG(about.st_mode) else None


# ---------------------------------------------------------------------- shared


def _carry_out(report: _MoveReport, work: Callable[[], Awaitable[None]]) -> None:
    """Do the work, close the stores, and report the outcome, also when it ended early."""

    async def closing() -> None:
        async with AsyncExitStack() as stack:
            for endpoint in report.endpoints:
                await stack.enter_async_context(endpoint)
            await work()

    try:
        with failing(report.environment):
            asyncio.run(closing())
    finally:
        report.show()
    if report.result.failures:
        raise SystemExit(1)


def _require_listing(start: Endpoint) -> None:
    """End at once if the backend can't list its keys: nothing could be found."""
    if not start.store.root.capabilities.lists:
        error(
            f"{start.name!r} can't list its keys, so there is nothing to go by; nothing was written",
            where(start.layout),
        )
        raise SystemExit(1)


def _warn_of_unlisted_namespaces(start: Endpoint) -> None:
    """Where the backend can't list its namespaces, others than those of the layout may have been missed."""
    if start.listed_only is not None:
        listed = ", ".join(start.called(names) for names in start.listed_only) or "none is listed"
        warning(
            f"{start.name!r} can't list its namespaces: of those below it, only the ones in the layout were included "
            f"({listed})",
            start.layout.environment,
        )


@dataclass
class _MoveReport:
    """The text or JSON that a command prints when its transfer ends, however it ends.

    ``verbs``: for entries that were transferred, and for those that were skipped. ``if_early``: for one that ended
    early. ``file``: the name of the dump in messages.
    """

    command: str
    endpoints: tuple[Endpoint, ...]
    verbs: tuple[str, str]
    about: str
    if_early: str
    file: str = ""
    more: dict[str, Any] = field(default_factory=dict)
    form: str = "text"
    result: TransferResult = field(default_factory=TransferResult)

    @property
    def environment(self) -> str | None:
        """The environment that errors begin with, or both."""
        names = list(dict.fromkeys(each.layout.environment for each in self.endpoints))
        return names[0] if len(names) == 1 else " → ".join(where(each.layout) for each in self.endpoints)

    def show(self) -> None:
        """Print the failures, as far as they are kept, and the sums."""
        result = self.result
        for failure in result.failures:
            error(self._text(failure), self.environment)
        if result.omitted:
            error(f"{result.omitted:,} more failed", self.environment)
        if self.form == "json":
            emit_json({"environment": self.endpoints[-1].layout.environment, self.command: self._document()})
        else:
            message(self._sums(), f"{self.environment or where(self.endpoints[0].layout)}: ")

    def _text(self, failure: Failure) -> str:
        if failure.address is None:
            return self._error(failure)
        names, key = failure.address
        return f"{key!r} in {self.endpoints[0].called(names)!r}: {failure.error}"

    def _error(self, failure: Failure) -> str:
        return failure.error if failure.line is None else f"{self.file}:{failure.line}: {failure.error}"

    def _sums(self) -> str:
        result, (done, skipped) = self.result, self.verbs
        sums = [f"{done} {counted(result.copied, 'key')} {self.about}"]
        if result.existing:
            sums.append(f"{skipped} {result.existing:,} existing")
        if result.expired:
            since = "since the dump" if self.command == "restore" else f"during the {self.command}"
            sums.append(f"{result.expired:,} expired {since}")
        if result.failed:
            sums.append(f"{result.failed:,} failed")
        return ", ".join(sums) + ("" if result.complete else f"; it ended early: {self.if_early}")

    def _document(self) -> dict[str, Any]:
        result = self.result
        return {
            **self.more,
            "complete": result.complete,
            "copied": result.copied,
            "existing": result.existing,
            "expired": result.expired,
            "failed": result.failed,
            "failures": [
                {
                    "namespaces": None if each.address is None else list(each.address.namespaces),
                    "key": None if each.address is None else each.address.key,
                    "error": self._error(each),
                }
                for each in result.failures
            ],
        }
