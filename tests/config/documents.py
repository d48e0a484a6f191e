"""Random documents, written in each format in as many ways as the format has."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

__all__ = ["Path", "render_json", "render_toml", "render_yaml", "values"]

Path = tuple[str | int, ...]

TRAPS = (
    *(
        "no",
        "on",
        "12:30",
        "0750",
        "1_000",
        "2020-01-01",
        "null",
        "true",
        "~",
        "=",
        "<<",
        "1e3",
        ".5",
        "-",
        "a: b",
        "#",
    ),
    *("${A:-b}", "0x1f", ".inf", "[a]", "{}", "*a", "&a", "!a", "|", "@", "a #b", "'", '"', "\\", "%a"),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(TRAPS)
KEYS = st.text("abcXYZ_-09", min_size=1, max_size=6) | TEXTS
LEAVES = (
    TEXTS
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False).map(lambda number: 0.0 if number == 0 else number)
)
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?: [A-Za-z0-9_]+)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_WORDS = frozenset({"null", "true", "false"})


def values(*, nulls: bool = True) -> st.SearchStrategy[dict[str, Any]]:
    """Mappings of mappings, lists and scalars, with nulls where the format has them."""
    leaves = LEAVES | st.none() if nulls else LEAVES
    nodes = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
        max_leaves=12,
    )
    return st.dictionaries(KEYS, nodes, min_size=1, max_size=5)


def _escaped(text: str, short: Mapping[str, str], *, hexes: bool) -> str:
    out = []
    for character in text:
        code = ord(character)
        if character in short:
            out.append(short[character])
        elif character.isprintable():
            out.append(character)
        elif hexes and code < 256:
            out.append(f"\\x{code:02x}")
        else:
            out.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return f'"{"".join(out)}"'


_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


class Renderer:
    """Writes one document; ``instead`` says what to write for the values at some paths.

    ``twice`` is the path of a mapping whose first key is written once more at its end.
    """

    def __init__(self, source: random.Random, instead: Mapping[Path, str], twice: Path | None) -> None:
        self.random = source
        self.instead = instead
        self.twice = twice

    def entries(self, value: dict[str, Any], path: Path) -> list[tuple[str, Any]]:
        entries = list(value.items())
        return [*entries, (entries[0][0], 0)] if path == self.twice else entries

    def blank(self) -> str:
        return " " * self.random.choice((0, 0, 1, 3))


# ---------------------------------------------------------------------- YAML


class _Yaml(Renderer):
    def text(self, text: str) -> str:
        ways = [_escaped(text, _SHORT, hexes=True)]
        if text.isprintable():
            ways.append("'" + text.replace("'", "''") + "'")
        if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
            ways.append(text)
        return self.random.choice(ways)

    def scalar(self, value: Any) -> str:
        if isinstance(value, str):
            return self.text(value)
        if value is None:
            return self.random.choice(("null", "~", "Null"))
        if isinstance(value, bool):
            word = str(value).lower()
            return self.random.choice((word, word.title(), word.upper()))
        if isinstance(value, int):
            ways = [str(value)]
            if value >= 0:
                ways += [hex(value), oct(value), f"+{value}"]
            return self.random.choice(ways)
        return repr(value)

    def flow(self, value: Any, path: Path) -> str:
        if path in self.instead:
            return self.instead[path]
        gap = self.random.choice(("", " ", "\n   "))
        if isinstance(value, dict) and value:
            inside = f",{gap}".join(
                f"{self.text(key)}: {self.flow(each, (*path, key))}" for key, each in self.entries(value, path)
            )
            return f"{{{gap}{inside}{gap}}}"
        if isinstance(value, list) and value:
            inside = f",{gap}".join(self.flow(each, (*path, index)) for index, each in enumerate(value))
            return f"[{gap}{inside}{gap}]"
        return "{}" if value == {} else "[]" if value == [] else self.scalar(value)

    def block(self, value: Any, path: Path, indent: int) -> str:
        """What follows ``key:`` or ``-``, with its line's end."""
        collection = isinstance(value, (dict, list)) and value and path not in self.instead
        if not collection or self.random.random() < 0.3:
            text = " " + self.flow(value, path).replace("\n", "\n" + " " * indent)
            return text + self.random.choice(("\n", "\n", "  # a comment\n"))
        deeper = indent + self.random.choice((1, 2, 4))
        lines = [self.random.choice(("\n", "\n", " # a comment\n\n"))]
        if isinstance(value, dict):
            lines += [
                " " * deeper + f"{self.text(key)}:" + self.block(each, (*path, key), deeper)
                for key, each in self.entries(value, path)
            ]
        else:
            lines += [" " * deeper + "-" + self.block(each, (*path, index), deeper) for index, each in enumerate(value)]
        return "".join(lines)


def render_yaml(
    value: dict[str, Any], source: random.Random, instead: Mapping[Path, str] | None = None, twice: Path | None = None
) -> str:
    """YAML, blocks and brackets mixed."""
    writer = _Yaml(source, instead or {}, twice)
    lines = (f"{writer.text(key)}:{writer.block(each, (key,), 0)}" for key, each in writer.entries(value, ()))
    return source.choice(("", "---\n", "# é\n\n")) + "".join(lines)


# ---------------------------------------------------------------------- TOML


class _Toml(Renderer):
    def text(self, text: str) -> str:
        ways = [_escaped(text, _SHORT, hexes=False)]
        if text.isprintable() and "'" not in text:
            ways.append(f"'{text}'")
        return self.random.choice(ways)

    def key(self, key: str) -> str:
        return key if _BARE.fullmatch(key) and self.random.random() < 0.8 else self.text(key)

    def inline(self, value: Any, path: Path) -> str:
        if path in self.instead:
            return self.instead[path]
        if isinstance(value, dict):
            inside = ", ".join(
                f"{self.key(key)}{self.blank()}={self.blank()}{self.inline(each, (*path, key))}"
                for key, each in self.entries(value, path)
            )
            return f"{{{self.blank()}{inside}{self.blank()}}}"
        if isinstance(value, list):
            gap = self.random.choice(("", " ", "\n  ", " # a ] comment\n"))
            inside = f",{gap}".join(self.inline(each, (*path, index)) for index, each in enumerate(value))
            return f"[{gap}{inside}{gap}]"
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int) and value >= 0:
            return self.random.choice((str(value), hex(value), oct(value), bin(value), f"{value:_}"))
        return repr(value)

    def statements(self, value: dict[str, Any], path: Path, header: Path) -> tuple[str, str]:
        """The keys of one table, and the tables in it, which have to follow all keys of the header's."""
        near, far = [], []
        for key, each in self.entries(value, path):
            inner = (*path, key)
            rows = isinstance(each, list) and each and all(isinstance(one, dict) for one in each)
            rows = rows and not any((*inner, index) in self.instead for index in range(len(each)))
            shown = [self.key(str(step)) for step in inner[len(header) :]]
            name = ".".join(self.key(step) for step in inner if isinstance(step, str))
            how = 1.0 if inner in self.instead or path == self.twice else self.random.random()
            if isinstance(each, dict) and each and how < 0.4:
                far.append(f"\n[{self.blank()}{name}{self.blank()}]\n{''.join(self.statements(each, inner, inner))}")
            elif isinstance(each, dict) and each and how < 0.6:
                dotted, tables = self.statements(each, inner, header)
                near.append(dotted)
                far.append(tables)
            elif rows and how < 0.4:
                for index, one in enumerate(each):
                    row = (*inner, index)
                    far.append(f"\n[[{name}]] # {index}\n{''.join(self.statements(one, row, row))}")
            else:
                comment = self.random.choice(("", "", "  # a comment"))
                near.append(f"{' . '.join(shown)} = {self.inline(each, inner)}{comment}\n")
        return "".join(near), "".join(far)


def render_toml(
    value: dict[str, Any], source: random.Random, instead: Mapping[Path, str] | None = None, twice: Path | None = None
) -> str:
    """TOML, with headers, dotted keys and inline tables mixed."""
    return source.choice(("", "\n", "# é\n")) + "".join(_Toml(source, instead or {}, twice).statements(value, (), ()))


# ---------------------------------------------------------------------- JSON


class _Json(Renderer):
    def node(self, value: Any, path: Path) -> str:
        if path in self.instead:
            return self.instead[path]
        gap = self.random.choice(("", " ", "\n  ", "\t"))
        if isinstance(value, dict):
            inside = f"{gap},{gap}".join(
                f"{self.scalar(key)}{gap}:{gap}{self.node(each, (*path, key))}"
                for key, each in self.entries(value, path)
            )
            return f"{{{gap}{inside}{gap}}}"
        if isinstance(value, list):
            inside = f"{gap},{gap}".join(self.node(each, (*path, index)) for index, each in enumerate(value))
            return f"[{gap}{inside}{gap}]"
        return self.scalar(value)

    def scalar(self, value: Any) -> str:
        return json.dumps(value, ensure_ascii=self.random.random() < 0.5)


def render_json(
    value: dict[str, Any], source: random.Random, instead: Mapping[Path, str] | None = None, twice: Path | None = None
) -> str:
    """JSON, with blanks wherever they may be."""
    return source.choice(("", "\n ")) + _Json(source, instead or {}, twice).node(value, ())
