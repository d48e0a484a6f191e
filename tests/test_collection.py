"""The garbage collector is left as it was found, whoever reads layouts at the same time."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

import storeconf
from storeconf.layout import collection_paused


def test_it_is_paused_inside_and_as_before_afterwards() -> None:
    assert gc.isenabled()
    with collection_paused():
        assert not gc.isenabled()
        with collection_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_who_has_switched_it_off_keeps_it_off() -> None:
    gc.disable()
    try:
        with collection_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("paused", [True, False])
def test_loading_pauses_it_unless_told_not_to(paused: bool) -> None:
    running = set()

    class Environ(dict[str, str]):
        def items(self) -> Any:
            running.add(gc.isenabled())
            return super().items()

        def get(self, *arguments: Any) -> Any:
            running.add(gc.isenabled())
            return super().get(*arguments)

    storeconf.load({"stores": {"a": {"type": "memory"}}}, environ=Environ(), pause_gc=paused)
    assert running == {not paused}
    assert gc.isenabled()


def test_a_wrong_layout_leaves_it_running() -> None:
    with pytest.raises(storeconf.ConfigError):
        storeconf.load({"stores": {"a": {"type": "nothing"}}}, environ={})
    assert gc.isenabled()


def test_the_last_of_several_threads_resumes_it() -> None:
    inside, leave = threading.Event(), threading.Event()

    def pause() -> None:
        with collection_paused():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=pause)
    thread.start()
    assert inside.wait(10)
    with collection_paused():
        pass
    assert not gc.isenabled()
    leave.set()
    thread.join()
    assert gc.isenabled()
