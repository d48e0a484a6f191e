"""From the text of a variable or override to a value: as the place that it is for wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from storeconf.config.document import parse
from storeconf.config.tree import Items, Text, TreePath, is_middleware_path
from storeconf.errors import ConfigError

if TYPE_CHECKING:
    from storeconf.config.fields import Expect

__all__ = ["BadText", "at", "literal", "value_of"]


class BadText(Exception):  # noqa: N818 - an answer of this module, made a diagnostic by who asked
    """The text is not what is wanted; ``hint`` says how to write it, ``code`` is that of the diagnostic."""

    def __init__(self, reason: str, hint: str | None = None, *, code: str = "SC305") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.code = code


def value_of(text: str, expect: Expect, path: TreePath) -> Any:
    """Return what ``text`` means at ``path``: a list or mapping in JSON or YAML flow where one can stand there.

    Everything else stays text, whose type the field decides. Raises `BadText`.
    """
    if is_middleware_path(path) and text.lower() in ("true", "false"):
        return text.lower() == "true"
    flow = text.strip()
    if (expect.listing or expect.mapping) and flow[:1] in ("[", "{"):
        wanted = expect.listing if flow[0] == "[" else expect.mapping
        try:
            value = _flow(flow)
        except ConfigError as error:
            if not expect.scalar:
                reason = str(error.diagnostics[0].message)
                raise BadText(f"the text is neither JSON nor YAML flow: {reason}", _how(expect)) from None
        else:
            if wanted and isinstance(value, list | dict):
                return literal(value)
    if expect.scalar:
        return Text(text)
    raise BadText(f"{expect.what} is wanted", _how(expect))


def literal(value: Any) -> Any:
    """Return plain data whose strings are `Text`: never interpolated, and of the type that their field decides."""
    if isinstance(value, dict):
        return {key: literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [literal(item) for item in value]
    return Text(value) if value.__class__ is str else value


def at(path: TreePath, value: Any) -> Any:
    """Return the patch that says ``value`` at ``path`` and nothing else."""
    for step in reversed(path):
        value = Items({step: value}) if isinstance(step, int) else {step: value}
    return value


def _flow(text: str) -> Any:
    """Parse one list or mapping; a document must be a mapping, so it is made the only value of one."""
    try:
        found = parse(f'{{"value": {text}}}'.encode(), "json", "").value
    except (ConfigError, UnicodeEncodeError):
        found = parse(f"{{value: {text}\n}}".encode(errors="replace"), "yaml", "").value
    return found["value"] if len(found) == 1 else None


def _how(expect: Expect) -> str:
    """How to write what is wanted."""
    ways = ["[first, second]"] if expect.listing else []
    ways += ["{name: value}"] if expect.mapping else []
    return f"write {' or '.join(ways)}"
