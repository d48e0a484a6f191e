"""The conformance suite over the file store's other ways: written to the disk, read by a thread, as elsewhere."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from storeconf import FileStore
from storeconf.stores.file import system
from storeconf.testing import StoreConformance

if TYPE_CHECKING:
    from storeconf import Store

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ways differ in what they do, not in the disk that they do it to; one in memory is quick."""
    if Path("/dev/shm").is_dir():
        monkeypatch.setattr(tempfile, "tempdir", "/dev/shm")


class TestFsync(StoreConformance):
    model_examples = 8

    def make_store(self) -> Store:
        return FileStore(self.directory / "data", create_directories=True, durability="fsync")


class TestInMemory(StoreConformance):
    """Where no disk is behind the files, the event loop overwrites entries too."""

    model_examples = 8

    def make_store(self) -> Store:
        return FileStore(self.directory / "data", create_directories=True)


class TestReadByTheThread(StoreConformance):
    model_examples = 8

    @pytest.fixture(autouse=True)
    def _read_by_the_thread(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(system, "cached_open", None)

    def make_store(self) -> Store:
        return FileStore(self.directory / "data", create_directories=True)


class TestAsElsewhere(StoreConformance):
    """What platforms do that neither swap names nor lock ranges of files, nor have eventfd, nor tell what is cached."""

    model_examples = 8

    @pytest.fixture(autouse=True)
    def _elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(system, "exchange", None)
        monkeypatch.setattr(system, "make_locks", system.FileLock)
        monkeypatch.setattr(system, "cached_open", None)
        monkeypatch.delattr(os, "eventfd")

    def make_store(self) -> Store:
        return FileStore(self.directory / "data", create_directories=True)
