"""TOML: tomllib judges the text and builds the values; locations are sought only when one is asked for.

An error of tomllib's becomes a problem at the location that has to change. tomllib's wording differs between versions
of Python, so it only chooses between explanations of the same code. The code itself follows from the text, and an error
that is not known here is shown as it is.
"""

from __future__ import annotations

import re
import tomllib
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from storeconf.config.readers import MAX_DIGITS, Problem, ReaderResult, foreign, parser_words
from storeconf.config.readers.toml_places import TomlScan, scan, token_end

if TYPE_CHECKING:
    from storeconf.config.readers import Entry
    from storeconf.config.tree import TreePath

__all__ = ["explain", "explain_number", "read_toml"]

_PLACE: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z")
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
_QUOTE: Final = "put the string in quotes"


def explain(text: str, error: tomllib.TOMLDecodeError, scan: TomlScan) -> list[Problem]:
    """Turn an error of tomllib into problems at the locations that have to change."""
    message, at = _place(text, error, scan)
    # tomllib stops at its first error, so a key that is defined twice before this location is that error.
    if scan.duplicates and scan.duplicates[0].start < at:
        return scan.duplicates
    return [_syntax(text, message, at, scan)]


def explain_number(text: str) -> Problem:
    """The same for the errors of int() and datetime, which tomllib passes on."""
    match = re.search(rf"[0-9][0-9_]{{{MAX_DIGITS},}}", text)
    if match:
        return Problem(
            "SC116", f"a number of more than {MAX_DIGITS} digits", match.start(), match.end(),
            hint="quote it if it is a string",
        )  # fmt: skip
    return Problem("SC107", "a number or a date is out of range", 0)


def _place(text: str, error: tomllib.TOMLDecodeError, scan: TomlScan) -> tuple[str, int]:
    """The error's message, and its offset: from Python 3.14 an attribute, before that a part of the message."""
    message = str(getattr(error, "msg", error))
    match = _PLACE.search(message)
    at = getattr(error, "pos", None)
    if isinstance(at, int):
        return message[: match.start()] if match else message, min(at, len(text))
    if match is None:
        return message, len(text.rstrip()) if scan.lost is None else scan.lost
    at = len(text.rstrip())
    if match[1]:
        at = min(_line_start(text, int(match[1])) + int(match[2]) - 1, len(text))
    return message[: match.start()], at


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


def _syntax(text: str, message: str, at: int, scan: TomlScan) -> Problem:
    start, line = _line(text, at)
    character = text[at : at + 1]
    if character and (character < " " or character == "\x7f") and character not in "\t\r\n":
        return Problem("SC106", f"TOML allows no control characters (U+{ord(character):04X})", at)
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
            return Problem(
                "SC107", "an inline table must end in the line in which it begins", at, hint="use a [header]"
            )
        odd = character.isprintable() and character not in "]}=.,"
        hint = "put keys with characters other than A-Z, a-z, 0-9, _ and - in quotes" if odd else None
        return Problem("SC107", "missing key", at, hint=hint)
    if message.startswith(("Unescaped", "Invalid hex", "Escaped character")):
        slash = max(text.rfind("\\", start, at + 1), start)
        hint = "double the backslash or use single quotes"
        return Problem("SC107", f"unknown escape sequence {text[slash : slash + 2]}", slash, slash + 2, hint=hint)
    return Problem("SC107", f"invalid TOML{parser_words(message)}", at)


def _after_value(start: int, line: str, at: int) -> Problem:
    """Something follows a value: most often the value is a string without quotes, such as 14d."""
    bare = _BARE_VALUE.match(line)
    if bare is None or start + bare.start(1) >= at:
        hint = "begin a new line, or put the whole value in quotes"
        return Problem("SC107", "unexpected text after the value", at, hint=hint)
    hint = _QUOTE
    if re.fullmatch(r"[-+]?0[0-9_]+", bare[1].strip()):
        hint = "a number can't begin with 0; put it in quotes if its digits matter"
    return Problem("SC107", "not a valid TOML value", start + bare.start(1), start + len(bare[0].rstrip()), hint=hint)


def _statement(start: int, line: str, at: int, *, missing: bool) -> Problem:
    hint = None
    dash = line.lstrip().startswith("- ")
    if colon := re.match(r"\s*(?:- +)*[\"']?[\w.-]+[\"']?\s*(:)", line):
        at, hint = start + colon.start(1), "in TOML, write key = value"
    elif dash:
        hint = "in TOML, write lists as key = [1, 2]"
    if missing and not dash:
        return Problem("SC107", "missing '=' after the key", at, hint=hint)
    return Problem("SC107", "this line is neither 'key = value' nor '[table]'", at, hint=hint)


def _value(text: str, at: int) -> Problem:
    match = _BARE.match(text, at)
    word = match.group() if match else ""
    if not word:
        if text[at : at + 1] in ("]", "}", ","):
            return Problem("SC107", f"missing value before {text[at]!r}", at, at + 1)
        return Problem("SC107", "missing value", at)
    hint = _LITERALS.get(word.lower(), _QUOTE)
    return Problem("SC107", "not a valid TOML value", at, at + len(word), hint=hint)


def _unclosed(text: str, message: str, at: int, scan: TomlScan) -> Problem:
    if not message.startswith("Unclosed"):
        start, line = _line(text, at)
        header = start + len(line) - len(line.lstrip())
        return Problem("SC107", f"missing {message.split()[1]} for this '['", header, header + 1)
    bracket, close = ("[", "]") if "array" in message else ("{", "}")
    opened = scan.unclosed
    if opened is None or opened > at or text[opened] != bracket:
        opened = max(text.rfind(bracket, 0, at), 0)
    if not text[at:].strip():
        return Problem("SC107", f"this '{bracket}' is never closed", opened, opened + 1)
    hint = _QUOTE if text[at].isalnum() and text[at - 1].isalnum() else None
    notes = ((f"the '{bracket}' is here", opened),)
    return Problem("SC107", f"expected ',' or '{close}'", at, hint=hint, notes=notes)


def _unended(text: str, at: int, start: int, scan: TomlScan) -> Problem:
    """A string without its closing quote: point to the opening one."""
    opening = scan.lost
    if opening is None or text[opening] not in "\"'":
        long = max(text.rfind('"""', 0, at), text.rfind("'''", 0, at))
        if long < 0:
            return Problem("SC107", "this string is never closed", start, at)
        opening = long
    quote = text[opening : opening + 3]
    if quote in ('"""', "'''"):
        return Problem("SC107", "this string is never closed", opening, opening + 3, hint=f"close it with {quote}")
    hint = f"close it with {quote[:1]} in the same line"
    return Problem("SC107", "this string is never closed", opening, opening + 1, hint=hint)


# ---------------------------------------------------------------- reading


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
