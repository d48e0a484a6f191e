"""Commands on the data of stores: ping, keys, get, set, delete, clear, purge, stats, key."""

from __future__ import annotations

import asyncio
import base64
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from storeconf._units import format_duration, format_size, parse_duration
from storeconf.cli.app import Source, format_option, layout_command
from storeconf.cli.output import columns, data, emit_json, message, style

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from storeconf.layout import Layout
    from storeconf.registry import StoreRegistry
    from storeconf.store import PingResult, Store


T = TypeVar("T")


def _with_registry(layout: Layout, work: Callable[[StoreRegistry], Awaitable[T]]) -> T:
    """Open the registry of a layout, do the work, close it."""

    async def run() -> T:
        async with layout.compile() as registry:
            return await work(registry)

    return asyncio.run(run())


def _with_store(source: Source, name: str, work: Callable[[Store], Awaitable[T]]) -> T:
    """Open the registry and do the work with one store."""
    layout = source.layout()

    def run(registry: StoreRegistry) -> Awaitable[T]:
        # A name that nobody listed is made only where the layout says how; a typing mistake must not make a store.
        return work(registry.get(name) if layout.default_factory is not None else registry[name])

    return _with_registry(layout, run)


class _Span(click.ParamType[timedelta]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _text(value: bytes) -> tuple[str, str]:
    """A value for JSON: as text where it is UTF-8, else in Base64, and which of the two."""
    try:
        return value.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(value).decode(), "base64"


@click.command("ping")
@format_option("text", "json")
@layout_command
def ping_command(source: Source, form: str) -> None:
    """Open every store and do one real round trip."""
    results: dict[str, PingResult] = _with_registry(source.layout(), lambda registry: registry.ping())
    if form == "json":
        emit_json(
            {
                "ping": [
                    {
                        "store": name,
                        "ok": result.ok,
                        "latency": result.latency,
                        "server": result.server,
                        "error": result.error,
                    }
                    for name, result in results.items()
                ]
            }
        )
    else:
        rows = []
        for name, result in results.items():
            if result.ok and result.latency is not None:
                took = f"{result.latency * 1000:.1f} ms"
                rows.append([style("ok", fg="green"), style(name, bold=True), took.rjust(9), result.server or ""])
            else:
                rows.append([style("failed", fg="red"), style(name, bold=True), "".rjust(9), result.error or ""])
        for line in columns(rows):
            data(line)
    if not all(result.ok for result in results.values()):
        raise SystemExit(1)


@click.command("keys")
@click.argument("store")
@click.argument("prefix", default="")
@format_option("text", "json")
@layout_command
def keys_command(source: Source, store: str, prefix: str, form: str) -> None:
    """List the live keys of a store (not of the namespaces below it) that begin with PREFIX."""

    async def collect(found: Store) -> list[str]:
        return sorted({key async for key in found.keys(prefix)})

    keys = _with_store(source, store, collect)
    if form == "json":
        emit_json({"keys": keys})
        return
    for key in keys:
        # A key may hold anything, line ends included; what would break the list is shown escaped.
        data(key if key.isprintable() else repr(key))


@click.command("get")
@click.argument("store")
@click.argument("key")
@format_option("text", "json")
@layout_command
def get_command(source: Source, store: str, key: str, form: str) -> None:
    """Write a value to stdout, byte for byte; exit 1 when there is none."""
    found = _with_store(source, store, lambda opened: opened.get_with_expiry(key))
    if found is None:
        message(f"no value for {key!r} in {store!r}")
        raise SystemExit(1)
    value, left = found
    if form == "json":
        text, encoding = _text(value)
        emit_json(
            {"key": key, "value": text, "encoding": encoding, "expires_in": None if left is None else left / 1000}
        )
    else:
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.flush()
        if sys.stdout.isatty():
            data()


@click.command("set")
@click.argument("store")
@click.argument("key")
@click.argument("value")
@click.option("--expires-in", type=_Span(), metavar="DURATION", help="How long it lives: 90s, 1h30m, 14d.")
@layout_command
def set_command(source: Source, store: str, key: str, value: str, expires_in: timedelta | None) -> None:
    """Store VALUE; `-` reads it from stdin, byte for byte."""
    stored: str | bytes = sys.stdin.buffer.read() if value == "-" else value
    _with_store(source, store, lambda opened: opened.set(key, stored, expires_in))


@click.command("delete")
@click.argument("store")
@click.argument("keys", nargs=-1, required=True)
@layout_command
def delete_command(source: Source, store: str, keys: tuple[str, ...]) -> None:
    """Remove keys; those that are missing are no error."""
    _with_store(source, store, lambda opened: opened.delete_many(keys))


@click.command("clear")
@click.argument("store")
@click.option("--yes", is_flag=True, help="Do not ask.")
@layout_command
def clear_command(source: Source, store: str, yes: bool) -> None:
    """Remove everything in a store and in the namespaces below it. Asks first."""
    if not yes:
        where = f" in environment {source.environment!r}" if source.environment else ""
        if not click.confirm(f"Remove everything in {store!r} and below it{where}?", err=True):
            message("nothing was removed")
            raise SystemExit(1)
    _with_store(source, store, lambda opened: opened.delete_all())


@click.command("purge")
@click.argument("store", required=False)
@layout_command
def purge_command(source: Source, store: str | None) -> None:
    """Drop what has expired, in STORE or in all stores."""
    if store is None:
        _with_registry(source.layout(), lambda registry: registry.delete_expired())
    else:
        _with_store(source, store, lambda opened: opened.delete_expired())


@click.command("stats")
@click.argument("store")
@format_option("text", "json")
@layout_command
def stats_command(source: Source, store: str, form: str) -> None:
    """Count the entries of a store, their bytes, and how long they have left. Reads every value."""

    async def count(opened: Store) -> dict[str, Any]:
        entries = size = permanent = 0
        shortest: int | None = None
        async for key in opened.keys():
            found = await opened.get_with_expiry(key)
            if found is None:
                continue
            entries += 1
            size += len(key.encode()) + len(found[0])
            if found[1] is None:
                permanent += 1
            else:
                shortest = found[1] if shortest is None else min(shortest, found[1])
        next_expiry = None if shortest is None else shortest / 1000
        return {"entries": entries, "bytes": size, "permanent": permanent, "next_expiry": next_expiry}

    counted = _with_store(source, store, count)
    if form == "json":
        emit_json({"stats": [{"store": store, **counted}]})
        return
    rows = [
        ["entries", str(counted["entries"])],
        ["keys and values", format_size(counted["bytes"])],
        ["never expire", str(counted["permanent"])],
    ]
    if counted["next_expiry"] is not None:
        rows.append(["next expiry in", format_duration(parse_duration(round(counted["next_expiry"], 3)))])
    for line in columns(rows):
        data(line)
