"""What tomllib says about broken TOML, in the words of whoever has to mend it."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from storeconf.config.readers.source import MAX_DIGITS, Problem

if TYPE_CHECKING:
    from storeconf.config.readers.toml_places import Scan

__all__ = ["explain", "explain_number"]

_PLACE: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z")
_TAKEN: Final = ("Cannot overwrite", "Cannot declare", "Cannot redefine", "Cannot mutate", "Duplicate inline")
_BARE: Final = re.compile(r"[^\s,\]}#\"']*")
_BARE_VALUE: Final = re.compile(r"[^=\"'#\n]*=[ \t]*([^\s\"'\[{#][^#\n]*)")
_LITERALS: Final = {
    "true": "write true", "yes": "write true", "on": "write true",
    "false": "write false", "no": "write false", "off": "write false",
    "null": "TOML has no null; name the path in a list under 'unset'",
    "none": "TOML has no null; name the path in a list under 'unset'",
    "nil": "TOML has no null; name the path in a list under 'unset'",
}  # fmt: skip
_HEADER: Final = re.compile(r"[ \t]*\[{1,2}[\w. \"'-]+\]{1,2}[ \t]*(?:#.*)?")
_QUOTE: Final = "put the text in quotes"


def explain(text: str, error: str, scan: Scan) -> list[Problem]:
    """Turn an error of tomllib, with its place in its text, into problems at the places that have to change."""
    match = _PLACE.search(error)
    message = error[: match.start()] if match else error
    at = len(text.rstrip())
    if match and match[1]:
        at = min(_line_start(text, int(match[1])) + int(match[2]) - 1, len(text))
    if message.startswith(_TAKEN):
        return scan.duplicates or [_taken(text, at, scan)]
    return [_syntax(text, message, at, scan)]


def explain_number(text: str, error: ValueError) -> Problem:
    """The same for what tomllib leaves to int() and datetime."""
    match = re.search(rf"[0-9][0-9_]{{{MAX_DIGITS},}}", text)
    if match:
        return Problem(
            "SC116", f"a number of more than {MAX_DIGITS} digits", match.start(), match.end(),
            hint="quote it if it is a text",
        )  # fmt: skip
    return Problem("SC107", f"a value is out of range: {error}", 0)


def _line_start(text: str, number: int) -> int:
    """The offset of a line as tomllib counts them."""
    start = 0
    for _ in range(number - 1):
        start = text.find("\n", start) + 1
    return start


def _line(text: str, at: int) -> tuple[int, str]:
    start = text.rfind("\n", 0, at) + 1
    end = text.find("\n", start)
    return start, text[start : len(text) if end < 0 else end].rstrip("\r")


def _taken(text: str, at: int, scan: Scan) -> Problem:
    """A key of a table that was closed, such as an inline one: the statement around ``at`` tries to add to it."""
    index = bisect_right(scan.keys, at) - 1
    start = scan.keys[index] if index >= 0 else at
    return Problem(
        "SC108", "this key is taken: what it names was said before, in another way", start,
        hint="say each table in one place: inline, with dotted keys, or under its [header]",
    )  # fmt: skip


def _syntax(text: str, message: str, at: int, scan: Scan) -> Problem:
    start, line = _line(text, at)
    character = text[at : at + 1]
    if character and (character < " " or character == "\x7f") and character not in "\t\r\n":
        return Problem("SC106", f"TOML holds no control characters, and this is U+{ord(character):04X}", at)
    if character == "\r" and text[at + 1 : at + 2] != "\n":
        return Problem("SC107", "a carriage return without a line feed", at, hint="end lines with LF or CR LF")
    if message == "Invalid value":
        opened = scan.unclosed
        if opened is not None and opened < start and _HEADER.fullmatch(line):
            notes = (("the next table begins here", start),)
            return Problem("SC107", f"this '{text[opened]}' is never closed", opened, opened + 1, notes=notes)
        return _value(text, at)
    if message.startswith("Expected newline"):
        return _after_value(start, line, at)
    if message.startswith(("Unclosed", "Expected ']'", "Expected ']]'")):
        return _unclosed(text, message, at, scan)
    if message.startswith(("Illegal", "Found invalid", "Unterminated", 'Expected "', "Expected '\"")):
        return _unended(text, at, start, scan)
    if message.startswith("Expected '='") or message == "Invalid statement":
        return _statement(start, line, at, missing="=" in message)
    if message.startswith("Invalid initial"):
        if character in ("\n", "\r") and "{" in text[start:at]:
            return Problem("SC107", "a table in braces ends in the line in which it begins", at, hint="use a [header]")
        odd = character.isprintable() and character not in "]}=.,"
        hint = "put keys with other characters than A-Z in quotes" if odd else None
        return Problem("SC107", "a key is missing here", at, hint=hint)
    if message.startswith(("Unescaped", "Invalid hex", "Escaped character")):
        slash = max(text.rfind("\\", start, at + 1), start)
        hint = "double the backslash or use single quotes"
        return Problem("SC107", f"there is no escape {text[slash : slash + 2]}", slash, slash + 2, hint=hint)
    return Problem("SC107", message[:1].lower() + message[1:], at)


def _after_value(start: int, line: str, at: int) -> Problem:
    """Something follows a value: most often the value is a text without quotes, such as 14d."""
    bare = _BARE_VALUE.match(line)
    if bare is None or start + bare.start(1) >= at:
        return Problem("SC107", "the value ended before this", at, hint="begin a new line, or quote the whole value")
    hint = _QUOTE
    if re.fullmatch(r"[-+]?0[0-9_]+", bare[1].strip()):
        hint = "a number begins with no 0; put it in quotes if its digits matter"
    return Problem("SC107", "this is no value of TOML", start + bare.start(1), start + len(bare[0].rstrip()), hint=hint)


def _statement(start: int, line: str, at: int, *, missing: bool) -> Problem:
    hint = None
    dash = line.lstrip().startswith("- ")
    if colon := re.match(r"\s*(?:- +)*[\"']?[\w.-]+[\"']?\s*(:)", line):
        at, hint = start + colon.start(1), "TOML writes key = value"
    elif dash:
        hint = "TOML writes lists as key = [1, 2]"
    if missing and not dash:
        return Problem("SC107", "a '=' is missing after the key", at, hint=hint)
    return Problem("SC107", "this line is neither 'key = value' nor '[table]'", at, hint=hint)


def _value(text: str, at: int) -> Problem:
    match = _BARE.match(text, at)
    word = match.group() if match else ""
    if not word:
        if text[at : at + 1] in ("]", "}", ","):
            return Problem("SC107", f"a value is missing before {text[at]!r}", at, at + 1)
        return Problem("SC107", "a value is missing", at)
    hint = _LITERALS.get(word.lower(), _QUOTE)
    return Problem("SC107", "this is no value of TOML", at, at + len(word), hint=hint)


def _unclosed(text: str, message: str, at: int, scan: Scan) -> Problem:
    if not message.startswith("Unclosed"):
        start, line = _line(text, at)
        header = start + len(line) - len(line.lstrip())
        return Problem("SC107", f"this '[' lacks its {message.split()[1]}", header, header + 1)
    bracket, close = ("[", "]") if "array" in message else ("{", "}")
    opened = scan.unclosed
    if opened is None or opened > at or text[opened] != bracket:
        opened = max(text.rfind(bracket, 0, at), 0)
    if not text[at:].strip():
        return Problem("SC107", f"this '{bracket}' is never closed", opened, opened + 1)
    hint = _QUOTE if text[at].isalnum() and text[at - 1].isalnum() else None
    notes = ((f"the '{bracket}' is here", opened),)
    return Problem("SC107", f"expected ',' or '{close}'", at, hint=hint, notes=notes)


def _unended(text: str, at: int, start: int, scan: Scan) -> Problem:
    """A text without its closing quote: point at the opening one."""
    opening = scan.lost
    if opening is None or text[opening] not in "\"'":
        long = max(text.rfind('"""', 0, at), text.rfind("'''", 0, at))
        if long < 0:
            return Problem("SC107", "a quoted text has no end in this line", start, at)
        opening = long
    quote = text[opening : opening + 3]
    if quote in ('"""', "'''"):
        return Problem("SC107", "this quoted text has no end", opening, opening + 3, hint=f"close it with {quote}")
    hint = f"close it with {quote[:1]}"
    return Problem("SC107", "this quoted text has no end in its line", opening, opening + 1, hint=hint)
