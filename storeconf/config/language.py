"""The language itself: every key, reserved name and rule that belongs to no backend's or middleware's model.

All stages, the JSON Schema and the language reference read these tables. The grammar of ``${…}`` is OpenTelemetry's for
configuration files, and ``:?`` as in Compose.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from storeconf.diagnostics import Fault

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ALIAS",
    "CANDIDATES",
    "CHILD",
    "COMMON",
    "EnvelopeField",
    "FACTORY",
    "FORBIDDEN",
    "Format",
    "KIND_KEYS",
    "NAME",
    "NAME_RULE",
    "NOT_HERE",
    "RESERVED",
    "Reference",
    "SUFFIXES",
    "SWITCHES",
    "TOP",
    "parse_references",
    "valid_name",
]

KIND_KEYS: Final = ("type", "parent", "use")
"""The fields of which exactly one makes the kind of a store or default factory."""

CANDIDATES: Final = ("storeconf.yaml", "storeconf.yml", "storeconf.toml", "storeconf.json", "pyproject.toml")
"""The files that discovery searches for; the last only counts with a table ``[tool.storeconf]``."""

Format: TypeAlias = Literal["yaml", "toml", "json"]

SUFFIXES: Final[Mapping[str, Format]] = MappingProxyType(
    {".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".json": "json"}
)
"""The format of a file, by the end of its name."""

SWITCHES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "STORECONF_ENV": "chooses the environment",
        "STORECONF_FILE": "names the file of the layout",
        "STORECONF_DISABLE_PLUGINS": "switches plugins off",
    }
)
"""The variables that set no value of the layout, and the purpose of each."""

FORBIDDEN: Final = ("version", "extends", "unset", "environments")
"""The keys that neither variables nor overrides can set, and that ``unset`` can't remove."""

NAME_RULE: Final = (
    "use letters, digits, '_' and '-', beginning and ending with a letter or digit, without '__', "
    "which separates the parts of a variable's name"
)

NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]|_(?!_))*(?<![-_])\Z")


def valid_name(name: object) -> bool:
    """Whether ``name`` can name a store or an environment."""
    return isinstance(name, str) and NAME.match(name) is not None


@dataclass(frozen=True, slots=True)
class EnvelopeField:
    """One field: its purpose, its values (as JSON Schema, draft 7), and examples."""

    description: str
    schema: Mapping[str, Any] = field(hash=False)
    examples: tuple[Any, ...] = field(hash=False)


_TEXT: Final = {"type": "string", "minLength": 1}
_PATHS: Final = {"type": "array", "items": _TEXT}

_DESCRIPTION: Final = EnvelopeField(
    "The purpose of the store; shown by tools, without any effect.", {"type": "string"}, ("Who is logged in.",)
)
_MIDDLEWARE: Final = EnvelopeField(
    "The chain around the store: each kind with its settings, or with the one value that it mainly has, or false to "
    "switch off what the parent has.",
    {"$ref": "#/definitions/middleware"},
    ({"ttl": "14d", "limit": {"value_size": "1MiB"}},),
)
_USE: Final = EnvelopeField(
    "The store of which this is another name: the same object.", {"$ref": "#/definitions/reference"}, ("cache",)
)

TOP: Final[Mapping[str, EnvelopeField]] = MappingProxyType(
    {
        "version": EnvelopeField("The version of this language; 1 when absent.", {"enum": [1]}, (1,)),
        "extends": EnvelopeField(
            "Files that this one builds on, lowest first; literal paths, relative to this file.",
            _PATHS,
            (["../base.yaml"],),
        ),
        "unset": EnvelopeField(
            "Dotted paths that this layer removes from those below it, before its other values; for TOML, which has "
            "no null.",
            _PATHS,
            (["stores.main.tls"],),
        ),
        "stores": EnvelopeField(
            "The stores by name. Each has exactly one of type (a root: it keeps the bytes), parent (a namespace of "
            "another store) and use (another name for one).",
            {"$ref": "#/definitions/stores"},
            ({"main": {"type": "memory"}, "sessions": {"parent": "main"}},),
        ),
        "default_factory": EnvelopeField(
            "The store for a name that is not listed: a namespace of a parent, a namespace of a hidden root of some "
            "type, one store for all (use), or an error (forbid). Absent: a namespace of a hidden memory root, with a "
            "warning.",
            {"$ref": "#/definitions/default_factory"},
            ({"parent": "main"}, "forbid"),
        ),
        "acknowledge": EnvelopeField(
            "Warnings that are known and not shown again: from each code to the dotted paths at which, or below "
            'which, it is accepted, or "*" for everywhere, also for warnings without a path.',
            {"$ref": "#/definitions/acknowledge"},
            ({"SC801": ["stores.sessions"], "SC804": ["*"]},),
        ),
        "environments": EnvelopeField(
            "The changes for each environment, by its name; they take precedence over general values.",
            {"$ref": "#/definitions/environments"},
            ({"development": {"stores": {"main": {"type": "memory"}}}},),
        ),
    }
)
"""The top level of a layout."""

COMMON: Final[Mapping[str, EnvelopeField]] = MappingProxyType({"description": _DESCRIPTION, "middleware": _MIDDLEWARE})
"""The fields of roots in addition to those of their type."""

CHILD: Final[Mapping[str, EnvelopeField]] = MappingProxyType(
    {
        "parent": EnvelopeField(
            "The store of which this is a namespace, on the same resource.",
            {"$ref": "#/definitions/reference"},
            ("main",),
        ),
        "namespace": EnvelopeField(
            "The namespace in the parent; the store's name when absent.",
            {"$ref": "#/definitions/namespace"},
            ("html",),
        ),
        **COMMON,
    }
)
"""The fields of stores with a parent."""

ALIAS: Final[Mapping[str, EnvelopeField]] = MappingProxyType({"use": _USE, "description": _DESCRIPTION})
"""The fields of aliases."""

FACTORY: Final[Mapping[str, EnvelopeField]] = MappingProxyType(
    {
        "max_stores": EnvelopeField(
            "The most handles to keep; beyond it the least recently used are dropped, unless still referenced. Data "
            "is never dropped.",
            {"type": "integer", "minimum": 1},
            (10_000,),
        ),
        **COMMON,
    }
)
"""The fields of a default factory in addition to its kind."""

RESERVED: Final = frozenset({*KIND_KEYS, *CHILD, *FACTORY} - {"type", "namespace"})
"""The fields that no backend can have: the language itself gives them to stores and default factories."""

NOT_HERE: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "environment": frozenset({"version", "extends", "environments"}),
        "overlay": frozenset({"extends", "environments"}),
    }
)
"""The keys that a kind of layer can't hold at its top."""


# ---------------------------------------------------------------- the grammar of ${…}


VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
"""The name of an environment variable."""

_BODY = re.compile(
    r"(?:(?P<resolver>[A-Za-z][A-Za-z0-9_-]*):(?![-?]))?(?P<argument>.*?)(?::(?P<operator>[-?])(?P<operand>.*))?\Z",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Reference:
    """One substitution, ``${resolver:argument:-operand}``, which has the ``span`` in its text.

    ``operator`` is ``-``, ``?``, or empty without an operand.
    """

    resolver: str
    argument: str
    operator: str
    operand: str
    span: tuple[int, int]

    def __str__(self) -> str:
        return self.argument if self.resolver == "env" else f"{self.resolver}:{self.argument}"


Part: TypeAlias = str | Reference


def parse_references(text: str) -> list[Part]:
    """Take a text apart into literal texts and references, from left to right; raises `Fault`."""
    parts: list[Part] = []
    literal = ""
    position = 0
    while (dollar := text.find("$", position)) >= 0:
        literal += text[position:dollar]
        after = text[dollar + 1 : dollar + 2]
        if after == "{":
            if literal:
                parts.append(literal)
                literal = ""
            reference = _reference(text, dollar)
            parts.append(reference)
            position = reference.span[1]
        else:
            literal += "$"
            position = dollar + (2 if after == "$" else 1)
    literal += text[position:]
    if literal or not parts:
        parts.append(literal)
    return parts


def _reference(text: str, start: int) -> Reference:
    close = text.find("}", start)
    if close < 0:
        hint = "write '$$' for a '$' that means itself"
        raise Fault("SC401", "'${' is not closed by '}'", hint, span=(start, len(text)))
    end = close + 1
    body = text[start + 2 : close]
    match = _BODY.match(body)
    assert match is not None  # the expression matches every text
    resolver, argument, operator, operand = match["resolver"], match["argument"], match["operator"], match["operand"]
    if "\n" in body or "\r" in body:
        raise Fault("SC401", "a substitution must be in one line", span=(start, end))
    if "${" in (operand or argument):
        inner = text.index("${", start + 2)
        reason = "a substitution can't hold another one: its default is literal text"
        raise Fault("SC401", reason, span=(inner, end))
    if resolver is None or resolver == "env":
        resolver = "env"
        if not VARIABLE_NAME.match(argument):
            raise Fault("SC401", f"'${{{body}}}' names no variable", _meant(body, argument), span=(start, end))
    elif not argument:
        raise Fault("SC401", f"nothing follows '{resolver}:'", f"write ${{{resolver}:…}}", span=(start, end))
    return Reference(resolver, argument, operator or "", (operand or "").replace("$$", "$"), (start, end))


def _meant(body: str, argument: str) -> str:
    """A hint how to write an invalid substitution."""
    if body != body.strip() and VARIABLE_NAME.match(argument.strip()):
        return f"write ${{{body.strip()}}}, without spaces"
    name = re.match(r"([A-Za-z_][A-Za-z0-9_]*)([-?+=])", argument)
    if name is not None and name[2] in "-?":
        return f"write ${{{name[1]}:{name[2]}…}}, with a colon"  # the rest may be a secret
    return "write ${NAME}, ${NAME:-default}, ${NAME:?message}, or '$$' for a '$' that means itself"
