"""Commands on the data of stores: ping, keys, get, set, delete, clear, prune, stats and raw-key."""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import sys
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from storeconf._arguments import parse_duration
from storeconf.build import Builder
from storeconf.cli.app import Source, format_option, on_layout, readable, run, store_of, with_store
from storeconf.cli.completion import complete_stores
from storeconf.cli.output import (
    ask,
    contents,
    data,
    emit_json,
    error,
    escaped,
    heading,
    message,
    on_terminal,
    print_table,
    readable_size,
    readable_time,
    stdout,
    style,
    where,
    write,
)
from storeconf.errors import StoreconfError, describe
from storeconf.plan import HIDDEN_ROOT
from storeconf.registry import StoreRegistry, compile_plan
from storeconf.store import PingResult

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from storeconf.layout import Layout
    from storeconf.plan import Plan
    from storeconf.store import Store

__all__ = [
    "clear_command",
    "delete_command",
    "get_command",
    "keys_command",
    "ping_command",
    "prune_command",
    "raw_key_command",
    "set_command",
    "stats_command",
]

_PAGE = 200
"""Keys that are listed at once."""

_AT_ONCE = 16
"""Values that are read at once: they may be large."""


# ---------------------------------------------------------------------- reading


@click.command("keys")
@click.argument("store", shell_complete=complete_stores)
@click.argument("prefix", default="")
@format_option("text", "json")
@on_layout()
def keys_command(source: Source, store: str, prefix: str, form: str) -> None:
    """List the live keys of a store.

    Those that begin with PREFIX, in STORE alone and not in the namespaces below it. A key that a line can't hold is
    shown as a JSON string; such lines begin with a quotation mark.
    """
    layout = source.layout()

    async def show(found: Store) -> None:
        if form == "json":
            keys = sorted(await _all(found, prefix))
            emit_json({"environment": layout.environment, "store": store, "keys": keys}, stored=True)
        else:
            async for page in _pages(found, prefix):
                contents("\n".join(map(escaped, page)))

    with_store(layout, store, show)


async def _pages(store: Store, prefix: str = "") -> AsyncIterator[list[str]]:
    """The keys by the hundreds, each once."""
    seen: set[str] = set()
    page: list[str] = []
    async for key in store.keys(prefix):
        if key not in seen:
            seen.add(key)
            page.append(key)
        if len(page) >= _PAGE:
            yield sorted(page)
            page = []
    if page:
        yield sorted(page)


async def _all(store: Store, prefix: str = "") -> list[str]:
    return [key async for page in _pages(store, prefix) for key in page]


@click.command("get")
@click.argument("store", shell_complete=complete_stores)
@click.argument("key")
@format_option("text", "json")
@on_layout()
def get_command(source: Source, store: str, key: str, form: str) -> None:
    """Write a value to stdout, byte for byte.

    The status is 1 if there is none. Expiries are not renewed. On a terminal, binary data is escaped.
    """
    layout = source.layout()
    found = with_store(layout, store, lambda opened: opened.get_with_expiry(key))
    if found is None:
        error(f"no key {key!r} in {store!r}", layout.environment)
        raise SystemExit(1)
    value, left = found
    if form == "json":
        text, encoding = _text(value)
        emit_json(
            {
                "environment": layout.environment,
                "store": store,
                "key": key,
                "value": text,
                "encoding": encoding,
                "expires_in": left,
            },
            stored=True,
        )
    elif not on_terminal(stdout()):
        write(value)
    else:
        text, encoding = _text(value)
        if encoding == "utf-8" and all(each.isprintable() or each in "\t\n" for each in text):
            contents(text)
        else:
            contents(repr(value))
            message(f"{readable_size(len(value))} of binary data, escaped for the terminal; a pipe gets the bytes")


def _text(value: bytes) -> tuple[str, str]:
    """A value for JSON: as text where it is UTF-8, else in Base64, and which of the two."""
    try:
        return value.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(value).decode(), "base64"


@click.command("stats")
@click.argument("store", shell_complete=complete_stores)
@format_option("text", "json")
@on_layout()
def stats_command(source: Source, store: str, form: str) -> None:
    """Count the entries of a store, and their bytes.

    Also how long they have left. Reads every value in STORE, but counts none in the namespaces below it.
    """
    layout = source.layout()
    stats = with_store(layout, store, _count)
    if form == "json":
        emit_json({"environment": layout.environment, "stats": [{"store": store, **stats}]})
        return
    rows = [
        ["entries", f"{stats['entries']:,}"],
        ["keys and values", readable_size(stats["bytes"])],
        ["largest value", readable_size(stats["largest_value"])],
        ["never expire", f"{stats['permanent']:,}"],
    ]
    for label, name in (("next expiry in", "next_expiry"), ("last expiry in", "last_expiry")):
        if stats[name] is not None:
            rows.append([label, readable_time(timedelta(seconds=stats[name]))])
    data(heading(layout, style(store, bold=True)))
    print_table(rows)


async def _count(store: Store) -> dict[str, Any]:
    entries = size = permanent = largest = 0
    lifetimes: list[float] = []
    async for page in _pages(store):
        for start in range(0, len(page), _AT_ONCE):
            keys = page[start : start + _AT_ONCE]
            for key, found in zip(keys, await asyncio.gather(*map(store.get_with_expiry, keys)), strict=True):
                if found is None:  # gone since it was listed
                    continue
                value, left = found
                entries += 1
                size += len(key.encode()) + len(value)
                largest = max(largest, len(value))
                if left is None:
                    permanent += 1
                else:
                    lifetimes = [min([*lifetimes[:1], left]), max([*lifetimes[1:], left])]
    first, last = lifetimes if lifetimes else (None, None)
    return {
        "entries": entries,
        "bytes": size,
        "largest_value": largest,
        "permanent": permanent,
        "next_expiry": first,
        "last_expiry": last,
    }


@click.command("raw-key")
@click.argument("store", shell_complete=complete_stores)
@click.argument("key")
@format_option("text", "json")
@on_layout()
def raw_key_command(source: Source, store: str, key: str, form: str) -> None:
    """Show the raw key that a backend uses.

    On a server that is the server's key, in a file store the path of a file. KEY need not exist. Connects to nothing.
    """
    layout = source.layout()

    _, found = store_of(layout, store)
    with readable(layout):
        raw = found.raw_key(key)
    if form == "json":
        emit_json({"environment": layout.environment, "store": store, "key": key, "raw_key": raw}, stored=True)
    if raw is None:
        error(f"the keys of {store!r} have no form that anything else could see", layout.environment)
        raise SystemExit(1)
    if form == "text":
        contents(escaped(raw) if on_terminal(stdout()) else raw)


# ---------------------------------------------------------------------- writing


class _Span(click.ParamType[timedelta]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        try:
            return parse_duration(value)
        except ValueError as failure:
            self.fail(str(failure), param, ctx)


@click.command("set")
@click.argument("store", shell_complete=complete_stores)
@click.argument("key")
@click.argument("value")
@click.option("--expires-in", type=_Span(), metavar="DURATION", help="How long it lives: 90s, 1h30m, 14d.")
@on_layout()
def set_command(source: Source, store: str, key: str, value: str, expires_in: timedelta | None) -> None:
    """Store a value.

    VALUE is stored as UTF-8; `-` reads it from stdin, byte for byte. The store's middleware applies: without
    --expires-in, the value gets the default of its ttl.
    """
    layout = source.layout()
    if value == "-" and sys.stdin is None:
        raise click.UsageError("stdin is closed")
    # Bytes that the shell could not decode are stored as they were typed.
    stored = sys.stdin.buffer.read() if value == "-" else value.encode(errors="surrogateescape")
    with_store(layout, store, lambda opened: opened.set(key, stored, expires_in))


@click.command("delete")
@click.argument("store", shell_complete=complete_stores)
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@on_layout()
def delete_command(source: Source, store: str, keys: tuple[str, ...]) -> None:
    """Remove keys.

    A missing key is not an error.
    """
    with_store(source.layout(), store, lambda opened: opened.delete_many(keys))


@click.command("clear")
@click.argument("store", shell_complete=complete_stores)
@click.option("--yes", is_flag=True, help="Do not ask.")
@on_layout()
def clear_command(source: Source, store: str, yes: bool) -> None:
    """Remove everything in a store.

    Also in the namespaces below it. Asks first; without a terminal it refuses, unless --yes is given.
    """
    layout = source.layout()
    registry, found = store_of(layout, store)
    if not yes and not _agreed(f"remove everything in {store!r}{_below(layout, store)}? [y/N] ", f"{where(layout)}: "):
        message("nothing was removed")
        raise SystemExit(1)
    run(layout, registry, found.delete_all)
    message(f"removed everything in {store!r}", f"{where(layout)}: ")


def _below(layout: Layout, name: str) -> str:
    """The listed stores that go the same way."""
    steps = {step.name: step for step in layout.plan().steps}
    here = steps.get(name)
    if here is None:
        return ""
    below = [
        step.name
        for step in steps.values()
        if step.root == here.root and step.path[: len(here.path)] == here.path and step.name != name
    ]
    return f", and with it {', '.join(below)}" if below else ""


def _agreed(question: str, label: str) -> bool:
    ask(question, label)
    answer = sys.stdin.readline() if sys.stdin is not None else ""  # as it is where it was closed
    if not on_terminal(sys.stdin):
        message("")  # a terminal would have ended the line
        if not answer:
            raise click.UsageError("no terminal to confirm on; pass --yes to remove everything")
    return answer.strip().lower() in ("y", "yes")


@click.command("prune")
@click.argument("store", required=False, shell_complete=complete_stores)
@on_layout()
def prune_command(source: Source, store: str | None) -> None:
    """Drop expired entries.

    In STORE with the namespaces below it, or in all stores. Servers drop them by themselves.
    """
    layout = source.layout()
    if store is None:
        with readable(layout):
            registry = layout.compile()
        run(layout, registry, registry.delete_expired)
    else:
        with_store(layout, store, lambda opened: opened.delete_expired())


# ---------------------------------------------------------------------- ping


@click.command("ping")
@click.argument("stores", nargs=-1, metavar="[STORE]...", shell_complete=complete_stores)
@format_option("text", "json")
@on_layout()
def ping_command(source: Source, stores: tuple[str, ...], form: str) -> None:
    """Do one real round trip to every store, or to each STORE.

    All at once. Shows how long each took, and the server's version, topology and TLS. The status is 1 when one does
    not answer.
    """
    layout = source.layout()
    plan = layout.plan()
    results = asyncio.run(_ping(layout, plan, stores))
    if form == "json":
        found = [
            {
                "store": name,
                "ok": result.ok,
                "latency": result.latency,
                "server": result.server,
                "error": result.error,
            }
            for name, result in results.items()
        ]
        emit_json({"environment": layout.environment, "ping": found})
    else:
        data(heading(layout))
        print_table(_rows(plan, results))
    if not all(result.ok for result in results.values()):
        raise SystemExit(1)


_OUR_ERROR = re.compile(r"^Store\w*Error: ")
"""The class name of an error, which programs need and people do not."""


async def _ping(layout: Layout, plan: Plan, names: tuple[str, ...]) -> dict[str, PingResult]:
    """The results by name. A store that can't be made or opened keeps no other from its turn."""
    registry, failures = _compile_possible(plan, layout.redact)
    logger = logging.getLogger("storeconf")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # the results contain the same
    try:
        wanted = {name: registry.require(name) for name in names or plan.names if name not in failures}
        factory = plan.default_factory
        if not names and factory is not None and factory.kind == "root" and HIDDEN_ROOT not in failures:
            wanted[HIDDEN_ROOT] = registry.get("storeconf-ping")
        results = await StoreRegistry(wanted).ping()
    finally:
        await registry.aclose()
        logger.setLevel(level)
    results |= {name: PingResult(ok=False, error=describe(each)) for name, each in failures.items()}
    order = [name for name in names or (*plan.names, HIDDEN_ROOT) if name in results]
    return {name: replace(results[name], error=_redacted(layout, results[name].error)) for name in order}


def _redacted(layout: Layout, text: str | None) -> str | None:
    return text and layout.redact(text)


def _rows(plan: Plan, results: dict[str, PingResult]) -> Iterator[list[str]]:
    roots = {step.name: step.root for step in plan.steps}
    shown = set()
    for name, result in results.items():
        about = result.server if result.ok else _OUR_ERROR.sub("", result.error or "")
        place = (roots.get(name, name), about)
        if place in shown:  # once for all stores of one root
            about = None if result.ok else style("the same", dim=True)
        elif about is not None:
            about = escaped(about)
        shown.add(place)
        took = readable_time(timedelta(seconds=result.latency)) if result.ok and result.latency is not None else ""
        state = style("ok", fg="green") if result.ok else style("failed", fg="red", bold=True)
        yield [state, style(name, bold=True), took.rjust(8), about or ""]


def _compile_possible(plan: Plan, redact: Callable[[str], str]) -> tuple[StoreRegistry, dict[str, StoreconfError]]:
    """The registry of all stores that can be made, and why the others can't: a package is missing, a plugin fails."""
    failures: dict[str, StoreconfError] = {}
    builder = Builder(plan)
    for step in plan.steps:
        try:
            builder.store(step.name)
        except StoreconfError as failure:
            failures[step.name] = failure
    factory = plan.default_factory
    try:
        builder.factory()
    except StoreconfError as failure:
        factory, failures[HIDDEN_ROOT] = None, failure
    if failures:
        plan = replace(
            plan,
            steps=tuple(step for step in plan.steps if step.name not in failures),
            names=tuple(name for name in plan.names if name not in failures),
            default_factory=factory,
        )
    return compile_plan(plan, redact), failures
