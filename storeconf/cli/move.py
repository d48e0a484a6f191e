"""Commands that move data between stores: copy, dump, restore."""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
import sys
import time
from contextlib import AsyncExitStack, aclosing, contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

import click

from storeconf.cli.app import Source, format_option, on_layout
from storeconf.cli.moved import Report
from storeconf.cli.opened import failing
from storeconf.cli.output import escaped, on_terminal
from storeconf.cli.progress import progress
from storeconf.cli.report import error, warning
from storeconf.cli.streams import lines_of, put
from storeconf.transfer.dump_format import Dumped, DumpError, DumpReader, DumpWriter
from storeconf.transfer.endpoint import End, overlap
from storeconf.transfer.transfer import Batch, Damage, Entry, Tally, Writer, now, read

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator

    from storeconf.cli.progress import Progress

__all__ = ["copy_command", "dump_command", "restore_command"]


# ---------------------------------------------------------------------- copy


@click.command("copy")
@click.argument("src")
@click.argument("dst")
@click.option("--overwrite", is_flag=True, help="Replace what DST has under the same keys, instead of keeping it.")
@click.option("--dry-run", is_flag=True, help="Write nothing; tell how much would be copied.")
@format_option("text", "json")
@on_layout()
def copy_command(source: Source, src: str, dst: str, overwrite: bool, dry_run: bool, form: str) -> None:
    """Copy a store into another one.

    With the namespaces below it, and with the expiry that is left. SRC and DST are stores; ENV:STORE is one in another
    environment. What DST has already stays, so a copy that ended early goes on when it is started again. The status is
    1 when not all could be copied.
    """
    start, goal = _two_ends(source, src, dst)
    if overlap(start, goal):
        error(f"{src!r} and {dst!r} are the same keys, or those of one lie in the other", goal.layout.environment)
        raise SystemExit(1)
    tally = Tally()
    report = Report(
        command="copy",
        ends=(start, goal),
        tally=tally,
        verbs=("would copy", "skip") if dry_run else ("copied", "skipped"),
        about=f"from {start.shown!r} to {goal.shown!r}",
        again="it begins anew when started again" if overwrite else "started again, it goes on from there",
        more={
            "from": {"environment": start.layout.environment, "store": start.name},
            "to": {"environment": goal.layout.environment, "store": goal.name},
            "dry_run": dry_run,
        },
        form=form,
    )

    async def work() -> None:
        with Damage(start, tally).heard() as damage:
            shown = on_terminal(sys.stderr)
            with progress(f"{src} → {dst}", await _count(start) if shown else None, shown=shown) as bar:
                await _copy(start, Writer(goal, tally, overwrite=overwrite), tally, damage, bar, dry_run=dry_run)

    _carry_out(report, work)
    _tell_what_was_not_seen(start)


def _two_ends(source: Source, src: str, dst: str) -> tuple[End, End]:
    (first, one), (second, other) = (_place(text, source.environment) for text in (src, dst))
    layouts = source.layouts(first) * 2 if first == second else source.layouts(first, second)
    start = End(layouts[0], one)
    goal = End(layouts[1], other, beside=start)
    if start.layout is not goal.layout:
        start.name_with_environment()
        goal.name_with_environment()
    return start, goal


def _place(text: str, environment: str | None) -> tuple[str | None, str]:
    """The environment and the name in ``ENV:STORE`` or ``STORE``."""
    before, colon, after = text.partition(":")
    if colon and not (before and after):
        raise click.UsageError(f"{text!r} is neither STORE nor ENV:STORE")
    return (before, after) if colon else (environment, text)


async def _count(end: End) -> int:
    """How many keys there are: what a progress bar needs to know."""
    async with aclosing(end.places()) as places:
        return sum([1 async for _ in places])


async def _copy(start: End, writer: Writer, tally: Tally, damage: Damage, bar: Progress, *, dry_run: bool) -> None:
    batch = Batch()
    async with aclosing(batch.of(start.places())) as batches:
        async for places in batches:
            missing = await writer.missing(places, surely=dry_run)
            if dry_run:
                tally.copied += len(missing)
            else:
                entries = await read(start, missing, tally, damage)
                batch.learn(entries)
                await writer.put(entries)
            bar.update(len(places))


# ---------------------------------------------------------------------- dump


@click.command("dump")
@click.argument("store")
@click.argument("dump", default="-", metavar="[FILE]")
@on_layout()
def dump_command(source: Source, store: str, dump: str) -> None:
    """Write a store to a file, or to stdout.

    With the namespaces below it, and with when each key expires, as lines of JSON that `restore` reads. Values are as
    applications see them, also where the store encrypts them. FILE must not exist yet; only you may read it. It appears
    when the dump is complete: one that ends early leaves a file beside it whose name ends in `.partial`. The status is
    1 when something could not be read.
    """
    start = End(source.layout(), store)
    tally = Tally()
    shown = escaped(dump)
    report = Report(
        command="dump",
        ends=(start,),
        tally=tally,
        verbs=("dumped", "skipped"),
        about=f"of {start.name!r}",
        again="the dump is cut, as `restore` will report",
    )
    with _output(dump) as (stream, written):
        if written != dump:
            report.again = f"what was dumped is in {escaped(written)}, which `restore` reads"

        async def work() -> None:
            with Damage(start, tally).heard() as damage:
                # Where the lines go to the terminal, a bar would stand between them.
                bar_shown = on_terminal(sys.stderr) and not stream.isatty()
                with progress(shown, await _count(start) if bar_shown else None, shown=bar_shown) as bar:
                    await _dump(start, stream, tally, damage, bar)

        _carry_out(report, work)
    _tell_what_was_not_seen(start)
    if encrypted := ", ".join(start.encrypted()):
        warning(f"values of {encrypted} are encrypted in the store, and not in the dump", start.layout.environment)


@contextmanager
def _output(file: str) -> Iterator[tuple[BinaryIO, str]]:
    """Where the dump goes to, and the name of it while it is written."""
    if file == "-":
        if sys.stdout is None:
            raise click.UsageError("stdout is closed")
        sys.stdout.flush()
        yield sys.stdout.buffer, file
        sys.stdout.buffer.flush()
        return
    if os.path.lexists(file):
        error(f"{escaped(file)} exists; nothing was written")
        raise SystemExit(1)
    partial = f"{file}.{secrets.token_hex(4)}.partial"
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with os.fdopen(fd, "wb", buffering=0) as stream:
            yield stream, partial
            os.fsync(fd)
        _publish(partial, file)
    finally:
        with suppress(FileNotFoundError):
            if not os.path.getsize(partial):
                os.unlink(partial)


def _publish(partial: str, file: str) -> None:
    """Give a complete dump its name, unless another file has got that name meanwhile."""
    try:
        os.link(partial, file)  # unlike a renaming, this never replaces a file
    except FileExistsError:
        error(f"{escaped(file)} exists by now; the dump is in {escaped(partial)}")
        raise SystemExit(1) from None
    except OSError:  # a file system without links
        os.rename(partial, file)
    else:
        os.unlink(partial)
    if hasattr(os, "O_DIRECTORY"):
        fd = os.open(os.path.dirname(file) or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


_ENOUGH = 1 << 18
"""Bytes that are worth a system call."""


async def _dump(start: End, stream: BinaryIO, tally: Tally, damage: Damage, bar: Progress) -> None:
    lines = DumpWriter()
    batch = Batch()
    # The first line waits for the first keys: where there is no server, there is no dump.
    waiting = lines.first(start.name, start.layout.environment, datetime.now(UTC))
    async with aclosing(batch.of(start.places())) as batches:
        async for places in batches:
            entries = await read(start, places, tally, damage)
            batch.learn(entries)
            offset = _wall() - now()
            for entry in entries:
                if entry.expired():
                    tally.gone += 1
                    continue
                end = None if entry.end is None else entry.end + offset
                waiting += lines.entry(Dumped(entry.place, entry.value, end))
                tally.copied += 1
                if len(waiting) >= _ENOUGH:
                    await put(stream, waiting)
                    waiting = b""
            bar.update(len(places))
    await put(stream, waiting + lines.last())


def _wall() -> int:
    """The wall time in milliseconds since 1970 (UTC)."""
    return time.time_ns() // 1_000_000


# ---------------------------------------------------------------------- restore


@click.command("restore")
@click.argument("store")
@click.argument("dump", default="-", metavar="[FILE]")
@click.option("--overwrite", is_flag=True, help="Replace what STORE has under the same keys, instead of keeping it.")
@click.option("--dry-run", is_flag=True, help="Write nothing; check the dump, and tell how much would be restored.")
@format_option("text", "json")
@on_layout()
def restore_command(source: Source, store: str, dump: str, overwrite: bool, dry_run: bool, form: str) -> None:
    """Read a dump from a file, or from stdin, into a store.

    What has expired since is left out. What STORE has already stays, so that one which ended early goes on when it is
    started again. Damaged lines are told and passed over. The status is 1 when not all could be restored, or when the
    dump is not whole.
    """
    with _input(dump) as stream:
        goal = End(source.layout(), store)
        tally = Tally()
        report = Report(
            command="restore",
            ends=(goal,),
            tally=tally,
            verbs=("would restore", "skip") if dry_run else ("restored", "skipped"),
            about=f"to {goal.name!r}",
            again="it begins anew when started again" if overwrite else "started again, it goes on from there",
            more={"store": goal.name, "dry_run": dry_run},
            form=form,
        )

        async def work() -> None:
            size = _size(stream)
            with progress(f"→ {goal.name}", size, shown=on_terminal(sys.stderr), count=False) as bar:
                dumped = _entries(stream, "stdin" if dump == "-" else escaped(dump), tally, bar)
                await _restore(dumped, Writer(goal, tally, overwrite=overwrite), tally, dry_run=dry_run)

        _carry_out(report, work)


@contextmanager
def _input(file: str) -> Iterator[BinaryIO]:
    if file != "-":
        with open(file, "rb", buffering=0) as stream:
            yield stream
    elif sys.stdin is None or on_terminal(sys.stdin):
        raise click.UsageError("give FILE, or a dump on stdin")
    else:
        yield sys.stdin.buffer


def _size(stream: BinaryIO) -> int | None:
    """The bytes of a file; of a pipe nobody knows."""
    try:
        about = os.fstat(stream.fileno())
    except OSError:
        return None
    return about.st_size if stat.S_ISREG(about.st_mode) else None


async def _entries(stream: BinaryIO, name: str, tally: Tally, bar: Progress) -> AsyncGenerator[Dumped]:
    """The entries of a dump that can be trusted; what else is in it is told."""
    reader = DumpReader()
    async with aclosing(lines_of(stream)) as lines:
        async for line in lines:
            try:
                dumped = reader.read(line)
            except DumpError as failure:
                why = f"{name}:{reader.lines}: {failure}"
                if failure.fatal or reader.ended:
                    tally.blame(why)
                    return
                tally.fail(None, why)
                continue
            bar.update(len(line))
            if dumped is not None:
                yield dumped
    if (missing := reader.missing()) is not None:
        tally.blame(f"{name}:{reader.lines}: {missing}")


async def _restore(dumped: AsyncIterator[Dumped], writer: Writer, tally: Tally, *, dry_run: bool) -> None:
    batch = Batch()
    async with aclosing(batch.of(dumped, lambda each: len(each.value))) as batches:
        async for chosen in batches:
            offset = now() - _wall()
            entries = [
                Entry(each.place, each.value, None if each.expires is None else each.expires + offset)
                for each in chosen
            ]
            batch.learn(entries)
            live = [entry for entry in entries if not entry.expired()]
            tally.gone += len(entries) - len(live)
            missing = set(await writer.missing([entry.place for entry in live], surely=dry_run))
            if dry_run:
                tally.copied += len(missing)
            else:
                await writer.put([entry for entry in live if entry.place in missing])


# ---------------------------------------------------------------------- what they share


def _carry_out(report: Report, work: Callable[[], Awaitable[None]]) -> None:
    """Do the work, close the stores, and tell what was done, also when it ended early."""

    async def closing() -> None:
        async with AsyncExitStack() as stack:
            for end in report.ends:
                stack.push_async_callback(end.registry.aclose)
            await work()

    complete = False
    try:
        with failing(report.environment):
            asyncio.run(closing())
        complete = True
    finally:
        report.tell(complete=complete)
    if report.tally.failures:
        raise SystemExit(1)


def _tell_what_was_not_seen(start: End) -> None:
    """Where the backend can't tell which namespaces there are, others than the listed ones may have been missed."""
    if start.listed_only is not None:
        listed = ", ".join(start.called(names) for names in start.listed_only) or "none is listed"
        warning(
            f"{start.name!r} can't tell which namespaces it has: of those below it, only listed ones came along "
            f"({listed})",
            start.layout.environment,
        )
