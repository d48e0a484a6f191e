"""TOML: tomllib judges the text and builds the values; locations are sought only when one is asked for."""

from __future__ import annotations

import re
import tomllib
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from storeconf.config.readers.source import Problem, ReaderResult, foreign
from storeconf.config.readers.toml_errors import explain, explain_number
from storeconf.config.readers.toml_places import TomlScan, scan, token_end

if TYPE_CHECKING:
    from storeconf.config.readers.source import Entry
    from storeconf.config.tree import TreePath

__all__ = ["read_toml"]

# A text below all of these limits is quick to read for tomllib. Above them, the scan counts first.
_MANY_DOTS: Final = re.compile(r"\.(?:[^.\n]*+\.){12}")  # in one line
_HARMLESS_LINE: Final = 2_000  # characters
_HARMLESS_MARKS: Final = 250_000  # characters that make values and keys


def read_toml(text: str, base: TreePath = ()) -> ReaderResult:
    """Read one document, of which only the table at ``base`` belongs to the layout."""
    reader = _TomlReader(text)
    value, problems = reader.read(base)
    return ReaderResult(value, problems, reader.places, reader.end)


class _TomlReader:
    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def scan(self) -> TomlScan:
        return scan(self.text)

    def places(self) -> Entry:
        return (0, 0, self.scan.root)

    def end(self, entry: Entry, key: bool) -> int:
        if key or entry[2] is None:
            return token_end(self.text, entry[0] if key else entry[1], key)
        if entry[2] is self.scan.root:
            return 0
        # A table made by a header or a dotted key has no bracket: its location is that of its name.
        return self.scan.ends.get(entry[1]) or token_end(self.text, entry[1], True)

    def read(self, base: TreePath) -> tuple[Any, list[Problem]]:
        if not _is_harmless(self.text) and self.scan.limit is not None:
            return None, [self.scan.limit]
        try:
            value: Any = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            return None, explain(self.text, error, self.scan)
        except ValueError:
            return None, [explain_number(self.text)]
        except RecursionError:
            if self.scan.limit is None:
                raise  # the caller itself was near the limit
            return None, [self.scan.limit]
        part = value
        for step in base:
            part = part.get(step) if isinstance(part, dict) else None
        problems = foreign(part, self.places, self.end, surrogates=False, base=base)
        return value, [self.scan.limit] if problems and self.scan.limit else problems


def _is_harmless(text: str) -> bool:
    if sum(map(text.count, "=,.[")) > _HARMLESS_MARKS:
        return False
    return max(map(len, text.split("\n"))) <= _HARMLESS_LINE and _MANY_DOTS.search(text) is None
