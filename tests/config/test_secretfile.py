"""Files of secrets that are no regular files: the shell's ``<(…)`` is a pipe, and nothing may wait for ever."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from storeconf.config.document import read_secret
from storeconf.diagnostics import Fault


def test_a_pipe_that_is_being_written() -> None:
    reading, writing = os.pipe()

    def write() -> None:
        for part in (b"hun", b"ter2\n"):
            os.write(writing, part)
        os.close(writing)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert read_secret(Path(f"/dev/fd/{reading}")) == "hunter2"
    finally:
        writer.join()
        os.close(reading)


def test_a_pipe_without_a_writer_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Fault, match="no data arrives") as caught:
        read_secret(tmp_path / "pipe")
    assert not caught.value.absent


def test_a_device_without_end_is_an_error() -> None:
    with pytest.raises(Fault, match="more than 1,048,576 bytes"):
        read_secret(Path("/dev/zero"))
