"""Explains broken YAML: turns the parser's error into a problem at the location that has to change.

The wording of libyaml, and of PyYAML without it, differs between versions. It only chooses between explanations of one
code, for the usual mistakes; an error that is not known here is shown with the parser's own words.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from yaml import YAMLError
from yaml.reader import ReaderError

from storeconf.config.readers import Problem, parser_words

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["explain"]

_CONTROL: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_BEYOND: Final = re.compile(r"\\U(?!000|0010)")
_LINE: Final = re.compile(r"[^\r\n]*")
_LONGEST_KEY: Final = 1024  # YAML's own limit for a key that is not in brackets
_QUOTE: Final = "put the string in quotes"


def explain(text: str, error: Exception, inside: int | None = None) -> Problem:
    """Turn an error of the parser into a problem at the location that has to change.

    ``inside`` is the offset of the innermost collection that has not ended.
    """
    if isinstance(error, ReaderError):
        match = _CONTROL.search(text)
        at = match.start() if match else min(error.position, len(text))
        which = f" (U+{ord(text[at]):04X})" if at < len(text) else ""
        hint = 'write it as an escape sequence in double quotes, such as "\\x07"'
        return Problem("SC106", f"YAML allows no control characters{which}", at, hint=hint)
    if not isinstance(error, YAMLError):  # of chr(), from PyYAML's own parser
        match = _BEYOND.search(text)
        return _code(text, match.start() if match else 0, 0, "")
    message = str(getattr(error, "problem", None) or error)
    at = _offset(text, getattr(error, "problem_mark", None))
    opened = _offset(text, getattr(error, "context_mark", None))
    context = str(getattr(error, "context", None) or "")
    if inside is not None and text[inside] in "[{" and "node content" in message and _at_end(text, at):
        return Problem("SC107", f"this '{text[inside]}' is never closed", inside, inside + 1)
    for words, rule in _RULES:
        if words in message:
            return rule(text, at, opened, context)
    words = parser_words(f"{context}: {message}" if context else message)
    return Problem("SC107", f"invalid YAML{words}", at)


def _offset(text: str, mark: Any) -> int:
    return len(text) if mark is None else min(mark.index, len(text))


def _line(text: str, at: int) -> tuple[int, str]:
    """The line around ``at``, after the offset of its beginning."""
    start = max(text.rfind("\n", 0, at), text.rfind("\r", 0, at)) + 1
    match = _LINE.match(text, start)
    return start, match.group() if match else ""


def _begins_line(text: str, at: int) -> bool:
    start, _ = _line(text, at)
    return not text[start:at].strip()


def _at_end(text: str, at: int) -> bool:
    return not text[at:].strip()


def _mapping_value(text: str, at: int, opened: int, context: str) -> Problem:
    if tab := _tab(text, at):
        return tab
    start, line = _line(text, at)
    before = line[: at - start]
    key = before.strip()
    if len(key) > _LONGEST_KEY:
        return Problem(
            "SC107", "a key can't have more than 1,024 characters", start + line.find(key), start + line.find(key) + 1
        )
    if re.search(r":\s+\S", before):
        return Problem(
            "SC107", "a second ': ' in one line", at, hint="put the value in quotes if it contains a colon and a space"
        )
    above = _above(text, start)
    if above is not None:
        number, previous = above
        if match := re.match(r"\s*(?:- +)*[\w.-]+(:)(?=[^\s:/])", previous):
            return Problem("SC107", "missing space after this colon", number + match.start(1))
        indented = len(line) - len(line.lstrip()) > len(previous) - len(previous.lstrip())
        if indented and ":" in previous:
            return Problem(
                "SC107", "unexpected key: the line above already has a value", at, None,
                hint="give both lines the same indentation, or remove the value above",
            )  # fmt: skip
        if ":" not in previous:
            stripped = previous.strip()
            return Problem(
                "SC107", "missing ':' in this line", number + previous.find(stripped), number + len(previous),
                hint="write 'key: value'",
            )  # fmt: skip
    return Problem("SC107", "unexpected key", at, hint="put it in quotes if it is a string")


def _above(text: str, start: int) -> tuple[int, str] | None:
    """The last line before ``start`` that is neither empty nor a comment, after the offset of its beginning."""
    while start > 0:
        start, line = _line(text, start - 2 if text[start - 2 : start] == "\r\n" else start - 1)
        if line.strip() and not line.lstrip().startswith("#"):
            return start, line
    return None


def _unclosed_text(text: str, at: int, opened: int, context: str) -> Problem:
    if "quoted" in context or "double" in context:
        quote = text[opened] if opened < len(text) and text[opened] in "'\"" else "quote"
        return Problem("SC107", "this string is never closed", opened, opened + 1, hint=f"close it with {quote}")
    return Problem("SC107", "unexpected end of the file", at)


def _flow(text: str, at: int, opened: int, context: str) -> Problem:
    bracket = text[opened] if opened < len(text) else "["
    close = "}" if bracket == "{" else "]"
    hint = None
    if text[max(at - 1, 0) : at + 1] == "${" or text[max(opened - 1, 0) : opened] == "$":
        hint = 'put ${...} in quotes between brackets: ["${NAME}"]'
    if _at_end(text, at):
        return Problem("SC107", f"this '{bracket}' is never closed", opened, opened + 1, hint=hint)
    notes = ((f"the '{bracket}' is here", opened),)
    if text[at] == ":" and _line(text, at)[0] > opened:
        hint = hint or f"is the '{close}' of the lines above missing?"
    return Problem("SC107", f"expected ',' or '{close}'", at, hint=hint, notes=notes)


def _tab(text: str, at: int) -> Problem | None:
    """The problem of a line that is indented with a tab."""
    start, line = _line(text, at)
    tab = line[: len(line) - len(line.lstrip())].find("\t")
    if tab < 0:
        return None
    return Problem("SC107", "YAML can't be indented with tabs", start + tab, start + tab + 1, hint="use spaces")


def _no_token(text: str, at: int, opened: int, context: str) -> Problem:
    return _tab(text, at) or Problem(
        "SC107", f"a string without quotes can't begin with {text[at : at + 1]!r}", at, at + 1, hint=_QUOTE
    )


def _no_colon(text: str, at: int, opened: int, context: str) -> Problem:
    start, line = _line(text, opened)
    return _tab(text, opened) or Problem(
        "SC107", "this line is neither 'key: value' nor '- item'", opened, start + len(line),
        hint="put a space after the colon, or put a string of several lines in quotes",
    )  # fmt: skip


def _no_key(text: str, at: int, opened: int, context: str) -> Problem:
    if text[at : at + 1] in ("]", "}"):
        return Problem("SC107", f"unexpected '{text[at]}': nothing is open that it could close", at, at + 1)
    if text[at : at + 2] in ("- ", "-\n") and _begins_line(text, at):
        return Problem(
            "SC107", "unexpected list item among the keys of a mapping", at, at + 1,
            hint="indent it below its key",
        )  # fmt: skip
    if _begins_line(text, at):
        return Problem(
            "SC107", "the indentation of this line matches no line above", at, hint="align it with the keys beside it"
        )
    return Problem(
        "SC107", "unexpected text after the value", at,
        hint="put the whole value in one pair of quotes; write a quote inside '...' as ''",
    )  # fmt: skip


def _no_block_end(text: str, at: int, opened: int, context: str) -> Problem:
    return (_no_dash if "collection" in context else _no_key)(text, at, opened, context)


def _no_dash(text: str, at: int, opened: int, context: str) -> Problem:
    if _begins_line(text, at):
        return Problem(
            "SC107", "expected '- ' in the column of the list, which continues here", at,
            notes=(("the list is here", opened),),
        )  # fmt: skip
    return Problem("SC107", "unexpected text after the list item", at, hint="put the whole item in one pair of quotes")


def _no_entry(text: str, at: int, opened: int, context: str) -> Problem:
    return Problem(
        "SC107", "unexpected list item in this line", at, at + 1,
        hint="begin the list in a line of its own, or put the string in quotes",
    )  # fmt: skip


def _no_content(text: str, at: int, opened: int, context: str) -> Problem:
    character = text[at : at + 1]
    if not character or character.isspace():
        return Problem("SC107", "missing value", at)
    hint = _QUOTE if character in "]}," else None
    return Problem("SC107", f"missing value before {character!r}", at, at + 1, hint=hint)


def _no_document(text: str, at: int, opened: int, context: str) -> Problem:
    if _begins_line(text, at):
        return Problem(
            "SC107", "this line is indented less than the first", at, hint="begin all top-level keys in one column"
        )
    return Problem("SC107", "unexpected text after the outermost value", at)


def _escape(text: str, at: int, opened: int, context: str) -> Problem:
    at = max(text.rfind("\\", 0, at + 1), 0)
    hint = "double the backslash or use single quotes"
    return Problem("SC107", f"unknown escape sequence {text[at : at + 2]}", at, at + 2, hint=hint)


def _code(text: str, at: int, opened: int, context: str) -> Problem:
    at = max(text.rfind("\\", 0, at + 1), 0)
    return Problem("SC107", f"missing character number after {text[at : at + 2]}", at, at + 2)


def _name(text: str, at: int, opened: int, context: str) -> Problem:
    sign = text[opened : opened + 1]
    return Problem("SC107", f"missing name after {sign!r}", opened, opened + 1, hint=_QUOTE)


def _fixed(message: str, hint: str | None = None) -> Callable[[str, int, int, str], Problem]:
    return lambda text, at, opened, context: Problem("SC107", message, at, hint=hint)


# Words that both libyaml and PyYAML use, the more specific first.
_RULES: Final[tuple[tuple[str, Callable[[str, int, int, str], Problem]], ...]] = (
    ("mapping values are not allowed", _mapping_value),
    ("unexpected end of stream", _unclosed_text),
    ("unexpected document indicator", _unclosed_text),
    ("expected ',' or", _flow),
    ("cannot start any token", _no_token),
    ("could not find expected ':'", _no_colon),
    ("expected <block end>", _no_block_end),
    ("expected key", _no_key),
    ("expected '-' indicator", _no_dash),
    ("violates indentation", _fixed("YAML can't be indented with tabs", "use spaces")),
    ("sequence entries are not allowed", _no_entry),
    ("node content", _no_content),
    ("document start>", _no_document),
    ("unknown escape character", _escape),
    ("invalid Unicode character escape", _code),
    ("expected hexdecimal number", _code),
    ("escape sequence of", _code),
    ("alphabetic or numeric character", _name),
    ("comment or line break", _fixed("unexpected text after '|' or '>' in its line", _QUOTE)),
    ("chomping or indentation", _fixed("unexpected text after '|' or '>' in its line", _QUOTE)),
    ("unknown directive", _fixed("unknown directive", "lines that begin with '%' are directives")),
    ("incompatible YAML document", _fixed("unsupported YAML version", "remove the %YAML line")),
)
