"""storeconf.transfer as a program uses it: without commands, with progress, and with what went wrong as data."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import io
import logging
import pkgutil
from typing import TYPE_CHECKING, Any

import pytest

from storeconf import (
    Damage,
    GuardedStore,
    StoreUnavailableError,
    StoreWrapper,
    UnknownStoreError,
    middleware,
    read_layout,
)
from storeconf.transfer import (
    Address,
    Endpoint,
    Failure,
    TransferResult,
    copy,
    dump,
    lines_of,
    new_file,
    overlap,
    restore,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from storeconf import Layout


def layout_of(directory: Path, **stores: dict[str, Any]) -> Layout:
    old = {"type": "file", "path": str(directory / "old")}
    new = {"type": "file", "path": str(directory / "new")}
    return read_layout({"stores": {"old": old, "new": new, **stores}}, environ={})


async def fill(endpoint: Endpoint, entries: dict[str, str], expires_in: float | None = None, *names: str) -> None:
    await endpoint.at(names).set_many(entries, expires_in)


async def content(endpoint: Endpoint) -> dict[Address, bytes]:
    found = {}
    async for address in endpoint.addresses():
        value = await endpoint.at(address.namespaces).get(address.key)
        assert value is not None
        found[address] = value
    return found


async def iterated(lines: Iterable[bytes]) -> AsyncIterator[bytes]:
    for line in lines:
        yield line


def test_a_store_is_copied_and_the_progress_is_reported(tmp_path: Path) -> None:
    async def main() -> None:
        layout, steps = layout_of(tmp_path), list[int]()
        async with Endpoint(layout, "old") as old, Endpoint(layout, "new", beside=old) as new:
            await fill(old, {f"k{number}": "v" for number in range(100)})
            await fill(old, {"k": "deep"}, 60, "a", "b")
            assert await old.count() == 101
            result = await copy(old, new, on_progress=steps.append)
            assert result == TransferResult(copied=101, complete=True)
            assert sum(steps) == 101
            assert await content(new) == await content(old)
            assert await new.at(("a", "b")).expires_in("k") in (59, 60)
            again = await copy(old, new)
            assert again == TransferResult(existing=101, complete=True)

    asyncio.run(main())


def test_a_dry_run_writes_nothing_and_overwriting_replaces(tmp_path: Path) -> None:
    async def main() -> None:
        layout = layout_of(tmp_path)
        async with Endpoint(layout, "old") as old, Endpoint(layout, "new", beside=old) as new:
            await fill(old, {"a": "old", "b": "old"})
            await fill(new, {"a": "new"})
            assert await copy(old, new, dry_run=True) == TransferResult(copied=1, existing=1, complete=True)
            assert await content(new) == {Address((), "a"): b"new"}
            assert await copy(old, new, overwrite=True) == TransferResult(copied=2, complete=True)
            assert await content(new) == await content(old)

    asyncio.run(main())


def test_a_dump_is_restored_line_by_line(tmp_path: Path) -> None:
    async def main() -> None:
        layout, written, steps = layout_of(tmp_path), list[bytes](), list[int]()

        async def write(lines: bytes) -> None:
            written.append(lines)

        async with Endpoint(layout, "old") as old, Endpoint(layout, "new", beside=old) as new:
            await fill(old, {"a": "1", "b": "2"}, 60)
            assert await dump(old, write) == TransferResult(copied=2, complete=True)
            lines = b"".join(written).splitlines(keepends=True)
            lines[1] = lines[1].replace(b'"crc32":"', b'"crc32":"x')
            result = await restore(iterated(lines), new, on_progress=steps.append)
            assert (result.copied, result.failed, result.complete) == (1, 1, True)
            assert result.failures == [Failure("the entry is damaged: its checksum does not fit", line=2)]
            assert sum(steps) == sum(map(len, lines)) - len(lines[1])
            cut = await restore(iterated(lines[:-1]), new, dry_run=True)
            assert cut.failures[-1] == Failure("it was cut: its last line is missing", line=3)

    asyncio.run(main())


def test_what_a_transfer_has_done_is_known_when_an_error_ends_it(tmp_path: Path) -> None:
    async def main() -> None:
        layout = layout_of(tmp_path, gone={"type": "redis", "url": "redis://127.0.0.1:1", "namespace": "x"})
        async with Endpoint(layout, "old") as old, Endpoint(layout, "gone", beside=old) as gone:
            await fill(old, {"a": "1"})
            result = TransferResult()
            with pytest.raises(StoreUnavailableError):
                await copy(old, gone, result=result)
            assert not result.complete
            assert result.copied == 0

    asyncio.run(main())


def test_damaged_entries_are_failures_and_not_log_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    layout = layout_of(
        tmp_path,
        letters={"parent": "old", "middleware": {"compress": "gzip"}},
        other={"parent": "old", "namespace": "other", "middleware": {"limit": {"value_size": 3}}},
    )

    async def main() -> TransferResult:
        async with Endpoint(layout, "old") as old, Endpoint(layout, "new", beside=old) as new:
            bare = old.registry["old"]
            await bare.set_many({"a": "fine", "b": "to be damaged"})
            await bare.with_namespace("letters").set("c", "plain")
            await bare.with_namespace("other").set("d", "long")
            path = bare.raw_key("b")
            assert path is not None
            with open(path, "r+b") as file:
                file.seek(-1, 2)
                file.write(b"\xff")
            result = await copy(old, new)
            assert old.store.root.on_damage is None
            return result

    with caplog.at_level(logging.WARNING):
        result = asyncio.run(main())
    assert (result.copied, result.failed) == (1, 3)
    by_key = {None if each.address is None else each.address.key: each for each in result.failures}
    assert by_key["c"].address == Address(("letters",), "c")
    assert by_key["c"].error.startswith("the value can't be read: ")
    assert by_key["d"].error == "the value can't be read: it has 4 bytes, and 3 are allowed"
    assert by_key[None].error.endswith(" is damaged")
    assert caplog.messages == []


def test_a_listener_gets_damage_instead_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    layout = layout_of(tmp_path, letters={"parent": "old", "middleware": {"encrypt": "a key"}})
    found = list[Damage]()

    async def main() -> None:
        async with layout.compile() as registry:
            letters = registry["letters"]
            await registry["old"].with_namespace("letters").set("k", "plain")
            assert await letters.get("k") is None
            assert len(caplog.messages) == 1
            letters.root.on_damage = found.append
            assert await letters.get("k") is None
            assert len(caplog.messages) == 1

    with caplog.at_level(logging.WARNING, "storeconf"):
        asyncio.run(main())
    (damage,) = found
    assert (damage.store, damage.namespaces, damage.key) == ("letters", ("letters",), "k")
    assert caplog.messages == [str(damage)]


def test_two_parts_of_one_store_overlap(tmp_path: Path) -> None:
    async def main() -> None:
        layout = layout_of(tmp_path, part={"parent": "old"})
        async with Endpoint(layout, "old") as old, Endpoint(layout, "part") as part, Endpoint(layout, "new") as new:
            assert [overlap(old, part), overlap(part, old), overlap(old, new)] == [True, True, False]
            with pytest.raises(ValueError, match="overlap"):
                await copy(old, part)

    asyncio.run(main())


@pytest.mark.parametrize("name", ["oldd", "no name", ""])
def test_a_store_that_the_layout_does_not_have_is_no_endpoint(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnknownStoreError):
        Endpoint(layout_of(tmp_path), name)
    with_factory = read_layout(
        {"stores": {"old": {"type": "file", "path": str(tmp_path)}}, "default_factory": {"parent": "old"}}, environ={}
    )
    if name == "oldd":
        assert Endpoint(with_factory, name).store.namespaces == ("oldd",)
    else:
        with pytest.raises(UnknownStoreError):
            Endpoint(with_factory, name)


def test_a_new_file_has_its_name_only_when_it_is_complete(tmp_path: Path) -> None:
    path = str(tmp_path / "dump")
    with pytest.raises(LookupError), new_file(path) as (stream, _):
        raise LookupError(stream.write(b"half"))
    (partial,) = tmp_path.iterdir()
    assert partial.name.endswith(".partial")
    assert partial.read_bytes() == b"half"
    with new_file(path) as (stream, _):
        stream.write(b"whole")
        assert not (tmp_path / "dump").exists()
    assert (tmp_path / "dump").read_bytes() == b"whole"
    with pytest.raises(FileExistsError), new_file(path):
        raise AssertionError("not reached")


def test_an_empty_file_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(LookupError), new_file(str(tmp_path / "dump")):
        raise LookupError
    assert list(tmp_path.iterdir()) == []


def test_lines_are_read_from_what_has_no_descriptor_too() -> None:
    async def main() -> list[bytes]:
        return [line async for line in lines_of(io.BytesIO(b"a\nb\nc"))]

    assert asyncio.run(main()) == [b"a\n", b"b\n", b"c"]


def test_every_middleware_of_ours_that_overrides_keys_promises_to_keep_them() -> None:
    overriding = []
    for module in pkgutil.iter_modules(middleware.__path__, "storeconf.middleware."):
        for kind in vars(importlib.import_module(module.name)).values():
            if isinstance(kind, type) and issubclass(kind, StoreWrapper) and kind.__module__ == module.name:
                guards = vars(kind).get("around_keys") if kind is not GuardedStore else None
                if guards is not None or (inspect.isasyncgenfunction(vars(kind).get("keys"))):
                    overriding.append(kind)
                    assert kind.keeps_keys is (kind.__name__ != "MovedFromStore"), kind  # with those of another
    assert len(overriding) >= 3
