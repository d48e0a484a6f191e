"""A memcached server: the real one where it is on the PATH, else a program that speaks what is used of its protocol."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    real = shutil.which("memcached")
    server = subprocess.Popen(
        [real, "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-u", "root", "-c", "512"]
        if real
        else [sys.executable, str(Path(__file__).with_name("server.py")), str(port)]
    )
    try:
        until = time.monotonic() + 20
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert time.monotonic() < until
            time.sleep(0.01)
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()
