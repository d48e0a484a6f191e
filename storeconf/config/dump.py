"""A layout as plain data in the structure of the language: the result of all layers, secrets masked.

Defaults are not part of it. Texts are written so that reading them again gives the same layout, also as YAML and TOML,
each line with the path of its value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from itertools import repeat
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

from pydantic import BaseModel, PlainSerializer, Secret, SecretBytes, SecretStr, TypeAdapter, ValidationError

from storeconf._text import MASK, REFERENCE, SECRET_NAME, escaped, mask_url
from storeconf.config.fields import ANY, Expect, fields_of
from storeconf.config.tree import Placeholder, Tainted, Text, TreePath, lookup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from storeconf.config import DefaultFactorySpec, StoreSpec
    from storeconf.config.pipeline import Assembly
    from storeconf.config.validate import Validated

__all__ = ["Line", "dump", "expected", "masked", "shown", "toml_lines", "yaml_lines"]

_DEFAULT: Final = re.compile(r"(\$\{(?!env:)[A-Za-z][A-Za-z0-9_-]*:(?!-)[^}]*?:-)[^}]*")
"""A substitution by a file or a resolver, and its default."""

_TEXT: Final = Expect("a text", frozenset({str}))
_SECRET_VALUE: Final = Expect("a text", frozenset({str}), secret=True)


def dump(assembly: Assembly, validated: Validated, *, masked: bool) -> dict[str, Any]:
    """Return the whole layout."""
    walk = _Walk(assembly, validated, masked)
    tree = assembly.tree
    shown: dict[str, Any] = {}
    if "version" in tree:
        shown["version"] = tree["version"]
    if "stores" in tree:
        stores = validated.stores
        shown["stores"] = {
            name: walk.store(stores.get(name), node, ("stores", name)) for name, node in tree["stores"].items()
        }
    if "default_factory" in tree:
        node, factory = tree["default_factory"], validated.default_factory
        is_text = isinstance(node, str)
        shown["default_factory"] = str(node) if is_text else walk.store(factory, node, ("default_factory",))
    if isinstance(tree.get("acknowledge"), dict):
        shown["acknowledge"] = {code: list(map(str, paths)) for code, paths in tree["acknowledge"].items()}
    return shown


def masked(assembly: Assembly, validated: Validated, path: TreePath, value: object) -> object:
    """The value of one layer at ``path``, masked; its field may not exist in the kind that the store has now."""
    if isinstance(value, dict):
        return {key: masked(assembly, validated, (*path, key), each) for key, each in value.items()}
    if isinstance(value, list):
        return [masked(assembly, validated, (*path, index), each) for index, each in enumerate(value)]
    if isinstance(value, str) and REFERENCE.fullmatch(value):
        return value
    if type(value) is int:
        spec = validated.stores.get(str(path[1])) if path[0] == "stores" and len(path) > 2 else None
        backend = getattr(spec if path[0] == "stores" else validated.default_factory, "backend", None)
        return value if backend is None else _number(type(backend), str(path[-1]), value)
    return _Walk(assembly, validated, True, written=True).value(expected(validated, path), value, None, path)


def expected(validated: Validated, path: TreePath) -> Expect:
    """The values that the field at ``path`` takes; if that is unknown, its name decides whether it holds a secret."""
    spec: StoreSpec | DefaultFactorySpec | None = None
    if path[:1] == ("stores",) and len(path) > 2:
        spec, path = validated.stores.get(str(path[1])), path[2:]
    elif path[:1] == ("default_factory",) and len(path) > 1:
        spec, path = validated.default_factory, path[1:]
    model: type[BaseModel] | None = None
    backend = getattr(spec, "backend", None)
    if path[0] == "middleware" and len(path) > 1:
        model = validated.models.get(("middleware", str(path[1])))
        main = getattr(model, "shorthand_field", None)
        path = path[2:] or ((main,) if main else ())
    elif backend is not None:
        model = type(backend)
    expect = ANY
    for step in path:
        if model is not None and str(step) in fields_of(model).expects:
            expect = fields_of(model).expects[str(step)]
        elif (inner := expect.inside(step)) is not None:
            expect = inner
        elif isinstance(step, str):
            expect = _SECRET_VALUE if SECRET_NAME.fullmatch(step) else ANY
        if expect.secret:
            break  # and so is all that it contains
        model = expect.model
    return expect


def _number(model: type[BaseModel], key: str, value: int) -> int | str:
    """A number as its field shows it: an octal one as a text with its digits."""
    field = model.model_fields.get(fields_of(model).attributes.get(key, key))
    if field is None or not any(isinstance(each, PlainSerializer) for each in field.metadata):
        return value
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[(field.annotation, *field.metadata)])  # type: ignore[arg-type]
    try:
        shown = adapter.dump_python(adapter.validate_python(value))
    except ValidationError:  # the value of a lower layer, which need not fit
        return value
    return shown if isinstance(shown, str) else value


class _Walk:
    """Walks over values; those that are ``written`` so are not substituted yet."""

    def __init__(self, assembly: Assembly, validated: Validated, masked: bool, *, written: bool = False) -> None:
        self._validated = validated
        self._tree = assembly.tree
        self._masked = masked
        self._written = written

    def store(
        self, spec: StoreSpec | DefaultFactorySpec | None, node: Mapping[str, Any], path: TreePath
    ) -> dict[str, Any]:
        """One store, or the default factory; without ``spec`` its kind is not known."""
        if spec is None:
            return {key: self._guessed(value, (*path, key)) for key, value in node.items()}
        backend: BaseModel | None = getattr(spec, "backend", None)
        links = getattr(spec, "middleware", {})
        shown = {}
        for key, value in node.items():
            here = (*path, key)
            if key == "middleware":
                shown[key] = {kind: self._link(links.get(kind), each, (*here, kind)) for kind, each in value.items()}
            elif backend is None or key not in fields_of(type(backend)).expects:
                shown[key] = self.value(_TEXT, value, getattr(spec, key, None), here)
            else:
                shown[key] = self._field(backend, key, value, here)
        return shown

    def value(self, expect: Expect, value: Any, actual: Any, path: TreePath) -> Any:
        """One value of the tree; ``actual`` is the validated value, if there is one."""
        if isinstance(value, Placeholder):
            return self._reference(expect, str(value))
        if self._masked and (expect.secret or (expect.hides and not isinstance(value, list | dict))):
            return MASK
        if self._masked and isinstance(value, Tainted) and value.hidden:
            return MASK if isinstance(actual, PurePath) else self._scalar(value.shown)
        now = lookup(self._tree, path) if self._written else None
        if isinstance(now, Tainted) and now.hidden and not isinstance(value, dict | list):
            return mask_url(_DEFAULT.sub(rf"\1{MASK}", str(value))) if "${" in str(value) else MASK
        if isinstance(value, dict):
            if isinstance(actual, BaseModel):
                return {key: self._field(actual, key, each, (*path, key)) for key, each in value.items()}
            fields = {} if expect.model is None else fields_of(expect.model).expects
            items = actual if isinstance(actual, Mapping) else {}
            return {
                key: self.value(
                    fields.get(key) or expect.value or self._unknown(key), each, items.get(key), (*path, key)
                )
                for key, each in value.items()
            }
        if isinstance(value, list):
            item = expect.item or expect
            # A set has no order, in which its items could be found.
            each_actual = actual if isinstance(actual, list | tuple) and len(actual) == len(value) else repeat(None)
            return [
                self.value(item, each, found, (*path, index))
                for index, (each, found) in enumerate(zip(value, each_actual, strict=False))
            ]
        if isinstance(actual, PurePath):
            value = str(actual)
        elif isinstance(value, Text) and isinstance(actual, bool | int | float):
            return actual
        return self._scalar(value)

    def _guessed(self, value: Any, path: TreePath) -> Any:
        """A value of a store whose kind is not known."""
        if isinstance(value, dict):
            return {key: self._guessed(each, (*path, key)) for key, each in value.items()}
        return self.value(expected(self._validated, path), value, None, path)

    def _reference(self, expect: Expect, text: str) -> str:
        """The text in the file of a value that is not known."""
        if not self._masked or REFERENCE.fullmatch(text):
            return text
        return MASK if expect.hides else mask_url(text)

    def _link(self, link: object, node: Any, path: TreePath) -> Any:
        if not isinstance(link, BaseModel):
            return False if link is False else self._guessed(node, path)
        if isinstance(node, dict):
            return {key: self._field(link, key, value, (*path, key)) for key, value in node.items()}
        main = getattr(link, "shorthand_field", None)
        return node if main is None or isinstance(node, bool) else self._field(link, main, node, path)

    def _field(self, model: BaseModel, key: str, value: Any, path: TreePath) -> Any:
        fields = fields_of(type(model))
        if key not in fields.expects:
            return self.value(self._unknown(key), value, None, path)
        actual = getattr(model, fields.attributes[key])
        if type(value) is int:
            value = _number(type(model), key, value)
        elif type(value) is Text and type(actual) is int:  # its digits need not be decimal
            value = _number(type(model), key, actual)
        return self.value(fields.expects[key], value, actual, path)

    def _unknown(self, key: str) -> Expect:
        return _SECRET_VALUE if SECRET_NAME.fullmatch(key) else ANY

    def _scalar(self, value: Any) -> Any:
        if isinstance(value, SecretStr | SecretBytes | Secret):
            return MASK if self._masked else value.get_secret_value()
        if isinstance(value, timedelta):
            return value.total_seconds()
        if value is None or isinstance(value, bool | int | float):
            return value
        text = mask_url(str(value)) if self._masked else str(value)
        if self._written:
            return text
        # Texts of files are interpolated again when they are read.
        return text.replace("$", "$$") if "${" in text or "$$" in text else text


# ---------------------------------------------------------------- as YAML and TOML


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
