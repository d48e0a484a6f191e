"""The directory of a file store: who may see it, what else may lie there, what it must be."""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from storeconf import FileStore, StoreError, StoreUnavailableError, StoreValueError
from storeconf.testing._lifecycle import in_child

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o277])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


async def use(store: FileStore) -> None:
    async with store:
        for turn in range(2):
            await asyncio.gather(*(store.set(f"k{key}", b"%d" % turn) for key in range(5)))
            await store.with_namespace("a").with_namespace("b").set("k", bytes(100_000 * turn))
        assert await store.increment("n") == 1
        assert await store.touch("n", 60)


def modes(directory: Path) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {"directories": set(), "files": set()}
    for path in [directory, *directory.rglob("*")]:
        kind = "directories" if path.is_dir() else "files"
        found[kind].add(stat.S_IMODE(path.stat().st_mode))
    return found


@pytest.mark.parametrize("durability", ["flush", "fsync"])
def test_only_the_owner_sees_it_whatever_the_umask(tmp_path: Path, umask: int, durability: str) -> None:
    directory = tmp_path / "a" / "b"
    asyncio.run(use(FileStore(directory, True, durability=durability)))  # type: ignore[arg-type]
    assert modes(tmp_path / "a") == {"directories": {0o700}, "files": {0o600}}


def test_others_see_it_when_mode_says_so(tmp_path: Path, umask: int) -> None:
    asyncio.run(use(FileStore(tmp_path / "data", True, mode=0o750)))
    assert modes(tmp_path / "data") == {"directories": {0o750}, "files": {0o640}}


def test_a_stricter_mode_holds_for_what_is_written_from_then_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with FileStore(tmp_path / "data", True, mode=0o755) as wide:
            await wide.set("k", b"1")
        async with FileStore(tmp_path / "data", mode=0o700) as strict:
            for turn in range(3):
                await strict.set("k", b"%d" % turn)

    asyncio.run(main())
    assert modes(tmp_path / "data")["files"] >= {0o600}
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "data").glob("*.kv")] == [0o600]


def test_a_missing_directory_is_an_error_if_it_must_exist(tmp_path: Path) -> None:
    directory = tmp_path / "missing"

    async def main() -> None:
        store = FileStore(directory, must_exist=True)
        for _ in range(2):
            with pytest.raises(StoreUnavailableError) as caught:
                await store.get("k")
            assert str(caught.value) == (
                f"the directory {directory} is missing; make it, or let the store make it: `create: true` in a "
                "layout, no must_exist=True in code"
            )
            assert (caught.value.store, caught.value.operation) == ("FileStore", "open")
        assert not directory.exists()
        directory.mkdir()
        await store.set("k", b"v")
        assert await store.get("k") == b"v"
        await store.aclose()

    asyncio.run(main())


def test_the_last_directory_is_made_and_its_parents_if_asked(tmp_path: Path) -> None:
    """As Litestar's file store does."""

    async def main() -> None:
        async with FileStore(tmp_path / "data") as store:
            await store.set("k", b"v")
        assert modes(tmp_path / "data") == {"directories": {0o700}, "files": {0o600}}
        deep = tmp_path / "a" / "b"
        with pytest.raises(StoreUnavailableError) as caught:
            await FileStore(deep).get("k")
        assert str(caught.value) == (
            f"the directory {tmp_path / 'a'} is missing; make it, or let the store make it: create_directories=True"
        )
        assert not (tmp_path / "a").exists()
        async with FileStore(deep, create_directories=True) as store:
            await store.set("k", b"v")
            assert await store.get("k") == b"v"

    asyncio.run(main())


def test_a_path_that_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def main() -> None:
        for path in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(StoreUnavailableError, match="Not a directory"):
                await FileStore(path, create_directories=True).get("k")

    asyncio.run(main())


def test_what_can_not_be_meant_is_refused() -> None:
    with pytest.raises(ValueError, match="durability is 'flush' or 'fsync', not 'never'"):
        FileStore("data", durability="never")  # type: ignore[arg-type]
    for mode in (0o600, 0o070, 750, 0o1700):
        with pytest.raises(ValueError, match="mode must give the owner every right"):
            FileStore("data", mode=mode)
    with pytest.raises(ValueError, match="can't hold a NUL character"):
        FileStore("da\0ta")
    with pytest.raises(ValueError, match="give create_directories or must_exist, not both"):
        FileStore("data", create_directories=True, must_exist=True)


def test_another_format_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with FileStore(tmp_path) as store:
            await store.set("k", b"v")
        assert (tmp_path / "storeconf.format").read_bytes() == b"storeconf file store, format 1\n"
        for text, problem in (
            ("storeconf file store, format 2\n", "it has format 2, and this version of storeconf knows format 1 only"),
            ("something else", "its storeconf.format is not one of storeconf's"),
        ):
            (tmp_path / "storeconf.format").write_text(text)
            with pytest.raises(StoreError) as caught:
                await FileStore(tmp_path).get("k")
            assert str(caught.value) == f"the directory {tmp_path} can't be used: {problem}"
            assert not isinstance(caught.value, StoreUnavailableError)

    asyncio.run(main())


def test_foreign_files_survive_everything(tmp_path: Path) -> None:
    """A directory may hold other things already, as long as they are not called as entries are."""
    foreign = [
        "notes.txt",
        "backup/entry.kv",
        "n.ns/readme",
        "n.ns/deep/er",
        ".hidden",
        "UPPER.ns/x",
        "storeconf.spare/x",
    ]
    for name in foreign:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)

    async def main() -> None:
        async with FileStore(tmp_path) as store:
            child = store.with_namespace("n")
            await child.set("k", b"v", 0.001)
            await child.with_namespace("m").set("k", b"v")
            await store.set("k", b"v")
            assert [key async for key in store.keys()] == ["k"]
            await store.delete_expired()
            await child.delete_all()
            await store.delete_all()
            assert [key async for key in child.keys()] == []

    asyncio.run(main())
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        [*foreign, "storeconf.format", "storeconf.lock"]
    )
    assert all((tmp_path / name).read_text() == name for name in foreign)
    assert not (tmp_path / "n.ns" / "m.ns").exists()


def test_a_symbolic_link_to_the_directory_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    asyncio.run(use(FileStore(tmp_path / "link")))
    assert list((tmp_path / "real").glob("*.kv"))


def test_a_directory_that_is_removed_meanwhile(tmp_path: Path) -> None:
    """Reading misses; writing makes it again, if it may."""
    directory, gone = tmp_path / "data", tmp_path / "gone"

    async def main() -> None:
        async with FileStore(directory, True) as store, FileStore(directory, must_exist=True) as strict:
            for each in (store, strict):
                await each.with_namespace("n").set("k", b"v")
            directory.rename(gone)
            assert await store.with_namespace("n").get("k") is None
            assert [key async for key in store.keys()] == []
            await store.delete("k")
            await store.delete_all()
            with pytest.raises(StoreUnavailableError, match="is missing"):
                await strict.set("k", b"v")
            await store.with_namespace("n").set("k", b"new")
            assert await strict.with_namespace("n").get("k") == b"new"
            await strict.set("k", b"v")
            assert await store.increment("n") == 1
        assert modes(directory) == {"directories": {0o700}, "files": {0o600}}

    asyncio.run(main())


def test_one_who_may_only_read() -> None:
    """They find what is there, and what they can't do is told. Root, to whom nothing is forbidden, becomes another."""
    nobody = 65534

    async def read(directory: Path) -> None:
        async with FileStore(directory) as store:
            assert await store.get("k") == b"v"
            assert [key async for key in store.keys()] == ["k"]
            for call in (store.set("new", b"v"), store.delete("k"), store.increment("n")):
                with pytest.raises(StoreUnavailableError, match="Permission denied"):
                    await call
            assert not (await store.ping()).ok

    async def write(directory: Path) -> None:
        async with FileStore(directory, True, mode=0o755) as store:
            await store.set("k", b"v")

    def look(directory: Path) -> None:
        if os.geteuid() == 0:
            os.setuid(nobody)
        else:
            directory.chmod(0o500)
            (directory / "storeconf.lock").chmod(0o400)
        asyncio.run(read(directory))

    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        directory = Path(place) / "data"
        asyncio.run(write(directory))
        in_child(60, lambda: look(directory))
        directory.chmod(0o700)


def test_a_ping_writes(tmp_path: Path) -> None:
    async def main() -> None:
        async with FileStore(tmp_path / "data", True) as store:
            assert (await store.ping()).ok
            assert not list((tmp_path / "data").rglob("probe"))
            (tmp_path / "data").rename(tmp_path / "moved")
            (tmp_path / "data").write_text("not a directory any more")
            result = await store.ping()
            assert (result.ok, result.latency) == (False, None)
            assert "Not a directory" in str(result.error)

    asyncio.run(main())


def test_hard_links_of_a_backup_keep_what_they_had(tmp_path: Path) -> None:
    async def main() -> None:
        async with FileStore(tmp_path / "data", True) as store:
            await store.set("k", b"old", 600)
            (tmp_path / "backup").mkdir()
            (file,) = (tmp_path / "data").glob("*.kv")
            os.link(file, tmp_path / "backup" / file.name)
            before = (tmp_path / "backup" / file.name).read_bytes()
            assert await store.touch("k", 60)
            for turn in range(4):
                await store.set("k", b"%d" % turn)
                await store.set("other", b"%d" % turn)
            assert (tmp_path / "backup" / file.name).read_bytes() == before

    asyncio.run(main())


def test_namespaces_too_deep_in_each_other(tmp_path: Path) -> None:
    async def main() -> None:
        async with FileStore(tmp_path) as store:
            child = store
            for _ in range(60):
                child = child.with_namespace("n" * 60)
            await child.set("k", b"v")
            assert await child.get("k") == b"v"
            for _ in range(20):
                child = child.with_namespace("n" * 60)
            for call in (child.set("k", b"v"), child.get("k")):
                with pytest.raises(StoreValueError, match="File name too long"):
                    await call
            await store.delete_all()
            assert not list(tmp_path.glob("*.ns"))

    asyncio.run(main())


def test_a_namespaces_path_is_its_directory(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "data", True, durability="fsync", mode=0o750)
    child = store.with_namespace("A").with_namespace("b")
    assert (store.path, child.path) == (tmp_path / "data", tmp_path / "data" / "+a.ns" / "b.ns")
    assert (child.create_directories, child.durability, child.mode) == (True, "fsync", 0o750)
    assert (child.must_exist, FileStore("d", must_exist=True).with_namespace("a").must_exist) == (False, True)
