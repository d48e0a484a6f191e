"""Hostile files, each read in a process of its own: a diagnostic within a second, and no crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

READ = r"""
import json, re, sys, time
from pathlib import Path
from storeconf.config.document import read
from storeconf.errors import ConfigError
began = time.process_time()
try:
    read(Path(sys.argv[1]))
except ConfigError as error:
    each = error.diagnostics[0]
    found = [each.code, each.line, each.column]
    str(error)
else:
    found = None
status = Path("/proc/self/status")  # its peak is this program's own, unlike getrusage's
peak = int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) if status.exists() else 0
print(json.dumps([found, time.process_time() - began, peak]))
"""

BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (name, name, b",".join([b"*%c" % (name - 1)] * 9)) for name in b"bcdefghi"
)
MERGE_BOMB = b"b0: &b0 {k0: x}\n" + b"".join(
    b"b%d: &b%d {<<: [%s], k%d: x}\n" % (n, n, b", ".join(b"*b%d" % m for m in range(n)), n) for n in range(1, 40)
)


def brackets(count: int) -> list[tuple[str, bytes, str]]:
    return [
        (f"{name}-{count}.{suffix}", head + unit * count, code)
        for name, suffix, head, unit, code in (
            ("list", "yaml", b"", b"[", "SC109"),
            ("mapping", "yaml", b"", b"{a: ", "SC109"),
            ("key", "yaml", b"", b"{", "SC114"),
            ("question", "yaml", b"", b"? ", "SC114"),
            ("dash", "yaml", b"", b"- ", "SC109"),
            ("anchor", "yaml", b"", b"&a [", "SC109"),
            ("list", "json", b"", b"[", "SC109"),
            ("mapping", "json", b"", b'{"a":', "SC109"),
            ("list", "toml", b"a=", b"[", "SC109"),
            ("table", "toml", b"a=", b"{a=", "SC109"),
            ("dots", "toml", b"", b"a.", "SC109"),
            ("header", "toml", b"[", b"a.", "SC109"),
            ("closed", "toml", b"a=" + b"[" * count, b"]", "SC109"),
        )
    ]


CORPUS = [
    *brackets(20_000),
    *((name, data, code) for name, data, code in brackets(1_000_000) if len(data) <= 4 * 1024 * 1024),
    ("bomb.yaml", BOMB, "SC111"),
    ("merge-bomb.yaml", MERGE_BOMB, "SC111"),
    ("directives.yaml", b"%TAG !a! x\n" * 300_000 + b"---\na: 1\n", "SC112"),
    ("late-directives.yaml", b"a: 1\n...\n" + b"%TAG !a! x\n" * 300_000, "SC112"),
    ("cr-directives.yaml", b"a: 1\r...\r" + b"%TAG !a! x\r" * 300_000, "SC112"),
    ("anchors.yaml", b"".join(b"a%d: &a%d 1\n" % (n, n) for n in range(100_000)) + b"x: *nope\n" * 200, "SC110"),
    ("alias.yaml", b"x: *" + b"a" * 4_000_000, "SC110"),
    ("items.yaml", b"a: [" + b"x," * 2_000_000, "SC105"),
    ("items.json", b'{"a": [' + b"1," * 1_900_000 + b"1]}", "SC105"),
    ("items.toml", b"a = [" + b"1," * 2_000_000 + b"]", "SC105"),
    ("digits.yaml", b"a: " + b"9" * 4_000_000, "SC116"),
    ("digits.json", b'{"a": ' + b"9" * 4_000_000 + b"}", "SC116"),
    ("digits.toml", b"a = " + b"9" * 4_000_000, "SC116"),
    ("hex.toml", b"a = 0x" + b"f" * 4_000_000, "SC116"),
    ("key.yaml", b"k" * 4_000_000 + b": 1", "SC107"),
    ("quote.yaml", b"a: '" + b"x\n" * 2_000_000, "SC107"),
    ("quote.toml", b'a = """' + b"x\n" * 2_000_000, "SC107"),
    ("quotes.toml", b"a = " + b'"' * 4_000_000, "SC107"),
    ("quote.json", b'{"a": "' + b"\\" * 4_000_000, "SC107"),
    ("blanks.yaml", b"a: 1\n" + b" " * 4_000_000 + b"b: 2", "SC107"),
    ("blanks.toml", b"a " + b" " * 4_000_000 + b"x", "SC107"),
    ("same.yaml", b"a: 1\n" * 800_000, "SC108"),
    ("same.toml", b"a=1\n" * 190_000, "SC108"),
    ("same.json", b"{" + b'"a":1,' * 190_000 + b'"a":1}', "SC108"),
    ("random.yaml", bytes(range(256)) * 4_000, "SC106"),
    ("wide.toml", "a = 1".encode("utf-16"), "SC106"),
]


def run(path: Path | str) -> tuple[list[object], float, int]:
    done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr.decode())
    found, seconds, peak = json.loads(done.stdout)
    return found, seconds, peak


@pytest.mark.parametrize(("name", "data", "code"), CORPUS, ids=[name for name, _, _ in CORPUS])
def test_a_diagnostic_within_a_second(tmp_path: Path, name: str, data: bytes, code: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    found, seconds, peak = run(path)
    assert found is not None
    assert found[0] == code
    assert found[1] is not None
    assert seconds < 1
    assert peak < 250 * 1024  # KiB


def test_a_file_of_50_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"a: 1\n" * 10_000_000)
    found, seconds, peak = run(path)
    assert found == ["SC105", None, None]
    assert seconds < 0.5
    assert peak < 100 * 1024


def test_what_has_no_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", "/dev/zero", "/dev/stdin", tmp_path):
        found, seconds, _ = run(path)
        assert found[0] == "SC102"
        assert seconds < 0.5
