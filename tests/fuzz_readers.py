"""Feeds broken documents to storeconf: whatever comes in, a document or a `ConfigError` with places comes out.

``python -m tests.fuzz_readers --inputs 1000000`` is the long run; the test suite makes a short one.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, get_args

import yaml

from storeconf.config.document import parse
from storeconf.config.language import Format
from storeconf.config.readers import yaml_reader
from storeconf.errors import ConfigError
from storeconf.layout import read_layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storeconf.config.document import Document
    from storeconf.layout import Layout

FORMATS: tuple[Format, ...] = get_args(Format)
SLOW = 1.0  # seconds

SEEDS: dict[Format, tuple[str, ...]] = {
    "yaml": (
        """version: 1
stores:
  main: {type: redis, url: 'redis://localhost:6379/0', namespace: shop}
  sessions:
    parent: main
    middleware:
      ttl: {default: 14d, renew_on_get: true}
      encrypt: {keys: ["${file:/run/secrets/x:-none}", b]}
  rate_limit: {use: main}
""",
        """x-defaults: &defaults
  type: file
  mode: 0750
  size: 1.5e3
stores:
  a:
    <<: *defaults
    path: |
      var
      lib
  b:
    <<: [*defaults, {c: ~}]
    'é 😀': >-
      folded
      text
""",
        """version: 1
stores:
  main: {type: file, path: var}
  pages: {parent: main, namespace: html, middleware: {ttl: 14d, limit: {key_size: 1KiB}}}
default_factory: {parent: main, max_stores: 5}
environments:
  development:
    stores: {main: {type: memory, max_size: 10MB}}
  production:
    unset: [stores.pages.namespace]
    stores: {main: {type: redis, url: "${REDIS_URL:?x}", namespace: a}}
""",
        "# a comment\r\n---\r\nlist:\r\n- 0x1F\r\n- 0o17\r\n- .inf\r\n- -.5\r\n- ? k\r\n  : v\r\n...\r\n",
    ),
    "toml": (
        """version = 1
[stores.main]
type = "redis"
url = "redis://localhost:6379/0"
[stores.sessions]
parent = 'main'
middleware.ttl = { default = '14d', renew_on_get = true }
[stores.sessions.more]
encrypt.keys = [ 'a',
  "b", # c
]
""",
        '''"é 😀".'b c'.d = """
long \\
  text\\u00e9"""
[[x.y]]
a = 1_000
[[x.y]]
b = [ {c = 0xff}, [+1.5e3, inf], true ]
l = """
raw"""
[x.z]
''',
    ),
    "json": (
        """{"version": 1, "stores": {"main": {"type": "redis", "url": "redis://localhost:6379/0"},
 "sessions": {"parent": "main", "middleware": {"keys": ["a\\u00e9\\ud83d\\ude00"]}}}}
""",
        """{"list": [1, -2.5e3, true, false, null, "\\"\\\\\\/\\n", {"a": {"b": [{}, []]}}]}
""",
    ),
}
TOKENS = (
    *"[]{}:,#&*!|>'\"%@`?-=.\\\n\r\t \0\x07\x85\ufeff\u2028é",
    *("\n  ", "\n\t", ": ", "- ", "? ", "<<: ", "*a", "&a ", "!!int ", "---\n", "...\n", "%TAG ! !\n", "%YAML 1.1\n"),
    *('"""', "'''", "[[", "]]", "\\u00", "\\ud800", "\\U0010FFFF", "9" * 700, "0x" + "f" * 700, "NaN", "1e999"),
    *("a.b.c", "a = 1\n", "a: 1\n", '"a": 1,', "[a]\n", "[[a]]\n", "1979-05-27", "07:32:00", "null", "true", "${A}"),
    *("type: ", "parent: ", "use: ", "memory", "main", "development", "${", "$$", ":?", "0", "-1", "[]", "{}", "1h"),
    *("[" * 150, "{a: " * 60, "- " * 120, "a." * 120),
)
BYTES = (b"\xff", b"\xfe\xff", b"\xff\xfe", b"\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\0")


def mutations(source: random.Random) -> Iterator[tuple[bytes, Format]]:
    """An endless stream of documents, most of them broken in a few places."""
    while True:
        form = source.choice(FORMATS)
        text = source.choice(SEEDS[form if source.random() < 0.95 else source.choice(FORMATS)])
        if source.random() < 0.1:
            text = "".join(source.choice(TOKENS) for _ in range(source.randrange(1, 40)))
        for _ in range(source.choice((0, 1, 1, 1, 2, 3, 8))):
            text = _mutated(source, text)
        data = text.encode("utf-8", "surrogatepass")
        if source.random() < 0.05:
            at = source.randrange(len(data) + 1)
            data = data[:at] + source.choice(BYTES) + data[at + source.randrange(3) :]
        yield data, form


def _mutated(source: random.Random, text: str) -> str:
    at = source.randrange(len(text) + 1)
    end = min(at + source.choice((1, 1, 2, 5, 20, 100)), len(text))
    to = source.randrange(len(text) + 1)
    token: str = source.choice(TOKENS)
    ways = (
        text[:at] + text[end:],
        text[:at] + token + text[at:],
        text[:at] + token + text[end:],
        text[:end] + text[at:],
        text[:at],
        text[:to] + text[at:end] + text[to:],
    )
    return source.choice(ways)


def check(data: bytes, form: Format) -> Document | None:
    """Read ``data``; AssertionError, or whatever the readers let through, when they break their promise."""
    try:
        document = parse(data, form, f"fuzz.{form}")
    except ConfigError as error:
        problems = error.diagnostics
    else:
        return _checked(document)
    assert problems
    for each in problems:
        assert each.file == f"fuzz.{form}"
        assert each.line is not None
        assert each.column is not None
        assert 1 <= each.line <= data.count(b"\n") + data.count(b"\r") + 1
        assert each.column >= 1
        assert str(each).encode()
    return None


def _checked(document: Document) -> Document:
    """Every value is plain, and has a place within the text."""
    for path, value in walk(document.value):
        assert value is None or type(value) in (dict, list, str, bool, int, float)
        for key in (False, True):
            place = document.location(path, key=key)
            assert place is not None
            assert place.end_line is not None
            assert place.end_column is not None
            assert (place.line, place.column) <= (place.end_line, place.end_column)
            lines = document.lines(place.line, place.end_line)
            assert len(lines) == place.end_line - place.line + 1
            assert place.column - 1 <= len(lines[0][1])
            assert place.end_column - 1 <= len(lines[-1][1])
    return document


def check_layout(data: bytes, form: Format, directory: Path, environment: str | None) -> Layout | None:
    """Make a whole layout of ``data``; whatever but a `ConfigError` is let through."""
    path = directory / f"fuzz.{form}"
    path.write_bytes(data)
    try:
        layout = read_layout(path, environment=environment, environ={"REDIS_URL": "redis://localhost"})
        layout.plan()
    except ConfigError as error:
        str(error).encode()
        return None
    layout.dump()
    return layout


def walk(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every value in ``value``, with its path."""
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from walk(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from walk(inner, (*path, index))


def main() -> int:
    """Make the long run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without-libyaml", action="store_true", help="read YAML with PyYAML's own parser")
    parser.add_argument("--layouts", action="store_true", help="make whole layouts of the documents")
    options = parser.parse_args()
    if options.without_libyaml:
        yaml_reader._LOADER = yaml.SafeLoader  # type: ignore[misc]
    source = random.Random(options.seed)
    good = bad = 0
    slowest = 0.0
    with TemporaryDirectory() as directory:
        for data, form in islice(mutations(source), options.inputs):
            began = time.process_time()
            try:
                if options.layouts:
                    environment = source.choice((None, "development", "production"))
                    good += check_layout(data, form, Path(directory), environment) is not None
                else:
                    good += check(data, form) is not None
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a find
                bad += 1
                print(f"{form} {error!r}\n  {data!r}", file=sys.stderr, flush=True)
            slowest = max(slowest, time.process_time() - began)
    print(f"{options.inputs:,} inputs: {good:,} good, {bad} broken promises, slowest {slowest:.3f} s")
    return 1 if bad or slowest > SLOW else 0


if __name__ == "__main__":
    sys.exit(main())
