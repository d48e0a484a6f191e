"""What every test gets: no variables of ours from outside, and an alarm when storeconf blocks an event loop."""

from __future__ import annotations

import gc
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator


# How long an example takes says more about what else the machine does.
settings.register_profile("storeconf", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("storeconf")

BROWSER = Path(__file__).parent / "browser"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what needs a browser, editors' programs or other shells, unless named: see `make test-browser`."""
    named = any("tests/browser" in argument for argument in config.args)
    return True if collection_path == BROWSER and not named else None


def pytest_collection_finish() -> None:
    """Spare each run of the garbage collector the thousands of tests and what they import: many tests ask for one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_outer_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a developer has set for a project of their own must not reach the tests."""
    for name in [name for name in os.environ if name.startswith("STORECONF")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def blocking_is_an_error() -> Iterator[None]:
    """A store that blocks while an event loop runs in this thread fails the test; loading a layout may read files."""
    with blockbuster_ctx(["storeconf.stores", "storeconf.middleware"]) as watch:
        # Locks between threads are held for moments only, and have to be.
        watch.functions["threading.Lock.acquire"].deactivate()
        watch.functions["threading.Lock.acquire_lock"].deactivate()
        # A test that is the first to make a server store in its loop imports the client library there, and that looks
        # for its own version on the disk. Whoever imports in a loop has chosen to.
        watch.functions["io.TextIOWrapper.read"].can_block_in("importlib/metadata/__init__.py", "read_text")
        yield


@pytest.fixture(autouse=True)
def no_file_store_is_left_open() -> Iterator[None]:
    """A file store that a test leaves open keeps a thread, which tests after it would take for one of theirs."""
    yield
    until = time.monotonic() + 10
    while left := [thread.name for thread in threading.enumerate() if thread.name.startswith("storeconf-file")]:
        gc.collect()  # a store that nobody refers to any longer ends its thread
        assert time.monotonic() < until, f"a file store was left open: {left}"
        time.sleep(0.01)
