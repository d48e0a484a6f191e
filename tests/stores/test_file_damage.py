"""Files that are damaged, planted, or can't be written."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from storeconf import FileStore, StoreUnavailableError
from storeconf.stores.file import reading
from storeconf.stores.file.directory import Directory
from storeconf.stores.file.format import entry_name
from storeconf.stores.file.writing import EntryWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from storeconf.stores.file.writing import LockedEntry


def open_store(path: Path) -> FileStore:
    return FileStore(path / "data", create_directories=True)


def entry(path: Path, key: str = "k") -> Path:
    return path / "data" / entry_name(f"::{key}".encode()).decode()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    caplog.clear()
    return found


def rewrite(place: Path, data: bytes) -> None:
    place.write_bytes(data)


async def is_a_miss(store: FileStore, place: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    assert await store.get("k") is None
    assert warnings(caplog) == [f"{place} is damaged and counts as missing"]
    assert await store.exists("k") is False
    assert await store.expires_in("k") is None
    assert await store.get_many(["k", "other"]) == {"other": b"whole"}
    assert [key async for key in store.keys()] == ["other"]
    assert await store.touch("k", 5) is False
    assert await store.pop("k") is None
    assert await store.get("k", 5) is None
    assert await store.compare_and_set("k", b"value", b"new") is False
    caplog.clear()
    await store.delete_expired()
    assert warnings(caplog) == [f"{place} was damaged and has been removed"]
    assert not os.path.lexists(place)
    assert await store.get("other") == b"whole"


async def damage_and_look(
    store: FileStore, place: Path, damage: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    """What is damaged is a miss everywhere, and each way of writing over it works."""
    for write in (
        lambda: store.set("k", b"new"),
        lambda: store.add("k", b"new"),
        lambda: store.set("k", b"new", keep_ttl=True),
        lambda: store.compare_and_set("k", None, b"new"),
    ):
        damage()
        await is_a_miss(store, place, caplog)
        damage()
        await write()
        caplog.clear()
        assert await store.get("k") == b"new"
        assert not warnings(caplog)
    damage()
    assert await store.increment("k") == 1
    damage()
    await store.delete("k")
    assert not os.path.lexists(place)
    damage()
    await store.delete_all()
    assert not os.path.lexists(place)
    await store.set("other", b"whole")


def test_damage_of_every_byte_is_a_miss(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = entry(tmp_path)

    async def main() -> None:
        async with open_store(tmp_path) as store:
            await store.set("k", b"value", 600)
            whole = place.read_bytes()
            for number in range(len(whole)):
                damaged = bytearray(whole)
                damaged[number] ^= 0x20
                place.write_bytes(damaged)
                assert await store.get("k") is None
                assert not [key async for key in store.keys()]
                place.write_bytes(whole[:number])
                assert await store.get("k") is None
                assert await store.exists("k") is False
            assert len(warnings(caplog)) == 4 * len(whole)
            place.write_bytes(whole)
            assert await store.get("k") == b"value"

    asyncio.run(main())


def test_a_damaged_entry_is_a_miss_and_can_be_overwritten_and_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = entry(tmp_path)

    async def main() -> None:
        async with open_store(tmp_path) as store:
            await store.set("other", b"whole")
            await store.set("k", b"value", 600)
            half = place.read_bytes()[:-3]
            await damage_and_look(store, place, lambda: rewrite(place, half), caplog)

    asyncio.run(main())


def test_another_keys_record_is_a_miss(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A copied file, or one of another namespace, is not taken for the key's."""
    place = entry(tmp_path)

    async def main() -> None:
        async with open_store(tmp_path) as store:
            await store.set("other", b"whole")
            await store.with_namespace("n").set("k", b"value")
            (file,) = (tmp_path / "data" / "n.ns").iterdir()
            for foreign in (file, entry(tmp_path, "other")):
                place.write_bytes(foreign.read_bytes())
                await is_a_miss(store, place, caplog)

    asyncio.run(main())


def test_damage_of_large_values_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = entry(tmp_path)

    async def main() -> None:
        async with open_store(tmp_path) as store:
            value = os.urandom(300_000)
            await store.set("k", value)
            assert await store.get("k") == value
            whole = place.read_bytes()
            for damaged in (whole[:200_000], whole[:-1] + bytes([whole[-1] ^ 1]), whole[:8192]):
                place.write_bytes(damaged)
                assert await store.get("k") is None
                assert await store.exists("k") is False
            place.write_bytes(whole[:200_000])
            assert [key async for key in store.keys()] == []

    asyncio.run(main())


def symbolic_link(place: Path, victim: Path) -> None:
    place.unlink(missing_ok=True)
    place.symlink_to(victim)


def pipe(place: Path, victim: Path) -> None:
    place.unlink(missing_ok=True)
    os.mkfifo(place)


def empty_directory(place: Path, victim: Path) -> None:
    place.unlink(missing_ok=True)
    place.mkdir()


def unix_socket(place: Path, victim: Path) -> None:
    place.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as planted:
        before = Path.cwd()
        os.chdir(place.parent)  # the name of a socket can't be long
        try:
            planted.bind(place.name)
        finally:
            os.chdir(before)


@pytest.mark.parametrize("plant", [symbolic_link, pipe, unix_socket])
def test_what_is_planted_is_not_followed(
    tmp_path: Path, plant: Callable[[Path, Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    place, victim = entry(tmp_path), tmp_path / "victim"

    async def main() -> None:
        async with open_store(tmp_path) as store:
            await store.set("other", b"whole")
            await store.set("k", b"value")
            victim.write_bytes(place.read_bytes())
            before = victim.read_bytes()
            await damage_and_look(store, place, lambda: plant(place, victim), caplog)
            for turn in range(3):
                await store.set("k", b"%d" % turn)
            assert victim.read_bytes() == before

    asyncio.run(main())


def test_a_directory_in_an_entrys_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is a miss; what lies in it is never deleted."""
    place = entry(tmp_path)

    async def main() -> None:
        async with open_store(tmp_path) as store:
            await store.set("other", b"whole")
            empty_directory(place, place)
            (place / "precious").write_text("kept")
            assert await store.get("k") is None
            with pytest.raises(StoreUnavailableError):
                await store.delete("k")
            with pytest.raises(StoreUnavailableError):
                await store.delete_all()
            await store.delete_expired()
            assert [key async for key in store.keys()] == []
            for turn in range(3):
                await store.set("k", b"%d" % turn)
                assert await store.get("k") == b"%d" % turn
        assert [path.read_text() for path in (tmp_path / "data").rglob("precious")] == ["kept"]

    asyncio.run(main())


def test_a_namespace_that_is_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_store(tmp_path) as store:
            (tmp_path / "elsewhere").mkdir()
            (tmp_path / "data" / "n.ns").symlink_to(tmp_path / "elsewhere")
            child = store.with_namespace("n").with_namespace("m")
            for call in (child.get("k"), child.set("k", b"v"), child.delete_all()):
                with pytest.raises(StoreUnavailableError, match="symbolic link"):
                    await call
            await store.delete_all()
            assert (tmp_path / "elsewhere").is_dir()

    asyncio.run(main())


FULL = """
import asyncio, resource, sys
from storeconf import FileStore, StoreUnavailableError

async def fails(call):
    try:
        await call
    except StoreUnavailableError as error:
        assert error.outcome_unknown is False and "File too large" in str(error), error
        assert error.operation in ("set", "add", "compare_and_set", "set_many", "increment"), error.operation
        return
    raise AssertionError("nothing was raised")

async def main():
    async with FileStore(sys.argv[1], create_directories=True, durability=sys.argv[2]) as store:
        await store.set("k", b"old", 600)
        await store.set("k", b"older", 600)
        await store.set("n", b"41")
        for limit in (5000, 44, 0):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            for size in (6000, 100_000):
                await fails(store.set("k", b"x" * size))
                await fails(store.add("new", b"x" * size))
                await fails(store.compare_and_set("k", b"older", b"x" * size))
                await fails(store.set_many({"k": b"x" * size}))
            if limit < 5000:
                await fails(store.increment("n"))
            assert await store.get("k") == b"older", await store.get("k")
            assert 590 < await store.expires_in("k") <= 600
            assert await store.get("new") is None
            assert sorted([key async for key in store.keys()]) == ["k", "n"]
        await store.delete("k")
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await store.set("k", b"x" * 100_000)
        assert await store.increment("n") == 42

asyncio.run(main())
"""


@pytest.mark.parametrize("durability", ["flush", "fsync"])
def test_a_full_disk_raises_and_keeps_the_old_value(tmp_path: Path, durability: str) -> None:
    """A limit on the size of files cuts writes as a full disk does, also in the middle."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL, tmp_path / "data", durability],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not list((tmp_path / "data" / "storeconf.spare").iterdir())


def test_a_record_that_is_not_in_its_place_yet_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One who has opened a file that has become a spare since sees the next record there before it takes effect."""
    directory = Directory(str(tmp_path / "data"), create=True, fsync=False, mode=0o700)
    directory.open()
    writer = EntryWriter(directory)

    def put(value: bytes) -> LockedEntry:
        with writer.entry((), "k") as each:
            each.put(value, 0)
        return each

    put(b"1")
    each = put(b"2")
    publish, read, spares = writer.publish, reading.read_record, directory.home() + b"/0"
    opened = os.open(spares, os.O_RDONLY)  # by one for whom it still was the entry
    seen: list[object] = []

    def look_first(*arguments: object) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", lambda *_: os.dup(opened))
            os.lseek(opened, 0, os.SEEK_SET)
            seen.append(read(each.target, each.key))
            publish(*arguments)  # type: ignore[arg-type]
            os.lseek(opened, 0, os.SEEK_SET)
            seen.append(read(each.target, each.key))

    os.lseek(opened, 0, os.SEEK_SET)
    monkeypatch.setattr(writer, "publish", look_first)
    put(b"3")
    os.close(opened)
    assert seen == [None, (b"3", 0, True)]
    writer.close()
