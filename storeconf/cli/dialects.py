"""Writes plain data as YAML and TOML that storeconf reads back unchanged, and each line with the path of its value."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from storeconf.cli.output import escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from storeconf.config.tree import TreePath

__all__ = ["Line", "shown", "toml_lines", "yaml_lines"]

Line: TypeAlias = tuple[str, "TreePath | None"]
"""A line of text, and the path of the value that it holds; None for a line without a value."""

_FLOW_WIDTH: Final = 100

_PLAIN: Final = re.compile(r"[^\W\d][^\n]*|/[^\n]+|(?:\d+(?:\.\d+)?(?:ms|[wdhms]|[kKMGTP]i?B|B))+")
"""How texts begin that need no quotes: with a letter, as a path, or as a duration or size."""

_ENDS: Final = re.compile(r":(?:\s|\Z)|\s#")
"""Characters that would end a text without quotes."""

_ENDS_IN_FLOW: Final = re.compile(r":(?:\s|\Z)|\s#|[,\[\]{}?]")

_WORDS: Final = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "null"})
"""Words that some YAML parsers do not read as text."""

_NUMBER: Final = re.compile(r"[-+]?(?:0x[0-9a-fA-F]+|0o[0-7]+|(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)")

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def shown(value: Any) -> str:
    """A value for people, on one line: texts without quotes where that leaves no doubt."""
    if isinstance(value, str):
        return _quoted(value) if _is_number_or_word(value) else escaped(value)
    return _flow(value, _yaml_text)


def yaml_lines(tree: Mapping[str, Any], *, items: bool = False) -> Iterator[Line]:
    """The lines of a mapping in YAML's block style; with ``items`` each item of a list on a line of its own."""
    return _yaml(tree, (), items)


def toml_lines(tree: Mapping[str, Any], *, items: bool = False) -> Iterator[Line]:
    """The lines of a mapping in TOML: each mapping of values is a table of its own."""
    return _toml(tree, (), items)


# ---------------------------------------------------------------------- YAML


def _yaml(tree: Mapping[str, Any], path: TreePath, items: bool) -> Iterator[Line]:
    indent = "  " * len(path)
    for key, value in tree.items():
        here = (*path, key)
        head = f"{indent}{_yaml_text(key)}:"
        if isinstance(value, dict) and value:
            yield head, None
            yield from _yaml(value, here, items)
        elif isinstance(value, list) and value and (items or len(head) + len(_flow(value, _yaml_text)) > _FLOW_WIDTH):
            yield head, None
            yield from ((f"{indent}  - {_flow(item, _yaml_text)}", (*here, at)) for at, item in enumerate(value))
        else:
            yield f"{head} {_yaml_text(value, _ENDS) if isinstance(value, str) else _flow(value, _yaml_text)}", here


def _yaml_text(text: str, ends: re.Pattern[str] = _ENDS_IN_FLOW) -> str:
    plain = _PLAIN.fullmatch(text) and text.isprintable() and text == text.strip() and not ends.search(text)
    return text if plain and text.lower() not in _WORDS else _quoted(text)


def _is_number_or_word(text: str) -> bool:
    return text.lower() in {"true", "false", "null"} or _NUMBER.fullmatch(text) is not None


# ---------------------------------------------------------------------- TOML


def _toml(tree: Mapping[str, Any], path: TreePath, items: bool) -> Iterator[Line]:
    tables = {key: value for key, value in tree.items() if isinstance(value, dict) and value}
    values = {key: value for key, value in tree.items() if key not in tables}
    if path and values:
        yield "", None
        yield f"[{'.'.join(_toml_key(str(step)) for step in path)}]", None
    for key, value in values.items():
        here = (*path, key)
        head = f"{_toml_key(key)} ="
        if isinstance(value, list) and value and (items or len(head) + len(_flow(value, _quoted, " =")) > _FLOW_WIDTH):
            yield f"{head} [", None
            yield from ((f"  {_flow(item, _quoted, ' =')},", (*here, at)) for at, item in enumerate(value))
            yield "]", None
        else:
            yield f"{head} {_flow(value, _quoted, ' =')}", here
    for key, value in tables.items():
        yield from _toml(value, (*path, key), items)


def _toml_key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _quoted(key)


# ---------------------------------------------------------------------- both


def _flow(value: Any, text: Callable[[str], str], colon: str = ":") -> str:
    """The value on one line."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, list):
        return f"[{', '.join(_flow(item, text, colon) for item in value)}]"
    if isinstance(value, dict):
        inner = ", ".join(f"{text(key)}{colon} {_flow(item, text, colon)}" for key, item in value.items())
        return f"{{{inner}}}"
    plain = json.dumps(value, default=str)
    if isinstance(value, float) and "." not in plain:
        plain = plain.replace("e", ".0e")  # without a point, older readers of YAML take it for a text
    return plain


def _quoted(text: str) -> str:
    """The text in double quotes, which JSON, YAML and TOML understand alike."""
    return "".join(
        each if each.isprintable() else f"\\u{ord(each):04x}" if ord(each) < 0x10000 else f"\\U{ord(each):08x}"
        for each in json.dumps(text, ensure_ascii=False)
    )
