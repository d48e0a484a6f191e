"""The grammar of ``${…}``: OpenTelemetry's for configuration files, and ``:?`` as in Compose."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, TypeAlias

from storeconf.diagnostics import Fault

__all__ = ["Reference", "parse_references"]

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
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
        if not NAME.match(argument):
            raise Fault("SC401", f"'${{{body}}}' names no variable", _meant(body, argument), span=(start, end))
    elif not argument:
        raise Fault("SC401", f"nothing follows '{resolver}:'", f"write ${{{resolver}:…}}", span=(start, end))
    return Reference(resolver, argument, operator or "", operand or "", (start, end))


def _meant(body: str, argument: str) -> str:
    """A hint how to write an invalid substitution."""
    if body != body.strip() and NAME.match(argument.strip()):
        return f"write ${{{body.strip()}}}, without spaces"
    name = re.match(r"([A-Za-z_][A-Za-z0-9_]*)([-?+=])", argument)
    if name is not None and name[2] in "-?":
        return f"write ${{{name[1]}:{name[2]}…}}, with a colon"  # the rest may be a secret
    return "write ${NAME}, ${NAME:-default}, ${NAME:?message}, or '$$' for a '$' that means itself"
