"""Texts for people: how unprintable characters are shown, masks, and the known name that is nearest to a misspelt one.

Which values are secret is known to `config.secrets`; this module only knows texts. Imports nothing of storeconf.
"""

from __future__ import annotations

import json
import re
import textwrap
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = [
    "escaped",
    "escaped_json",
    "MASK",
    "REFERENCE",
    "SECRET_NAME",
    "almost",
    "broken",
    "close",
    "credentials_in",
    "hidden_by",
    "mask_url",
    "nearest",
    "printable",
    "slips",
    "starred_line",
    "without",
]

_ODD = re.compile("[^\x20-\x7e\n]")
"""Characters that may be unprintable."""
_DIGITS = re.compile(r"\d+")


def printable(text: str, *, newlines: bool = False) -> str:
    """The text with an escape for each character that could move a terminal's cursor or hide text."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or (newlines and each == "\n") else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def broken(text: str, width: int | None, first: int = 0, indent: int = 0) -> list[str]:
    """The text in lines that fit into ``width`` columns, broken at spaces alone, so that words can still be copied.

    ``first`` columns of the first line and ``indent`` of the others are taken. None is without a limit.
    """
    if width is None:
        return [text]
    found: list[str] = []
    for each in text.split("\n"):
        taken = indent if found else first
        found += textwrap.wrap(
            each, width, initial_indent=" " * taken, subsequent_indent=" " * indent,
            break_long_words=False, break_on_hyphens=False, replace_whitespace=False, expand_tabs=False,
        ) or [" " * taken]  # fmt: skip
    return [line[indent if at else first :] for at, line in enumerate(found)]


def escaped(text: str) -> str:
    """The text as it is, or in quotes and escaped as in JSON if it contains characters that a line can't show."""
    if text.isprintable() and text == text.strip() and text and text[0] != '"':
        return text
    return escaped_json(json.dumps(text, ensure_ascii=False))


def escaped_json(text: str) -> str:
    """JSON with an escape for each character that a terminal would obey."""
    return text if text.isascii() and "\x7f" not in text else _ODD.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1]


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that is nearest to ``word``, or None if none is near."""
    by_normal = {candidate.lower().replace("-", "_"): candidate for candidate in candidates}
    normal = word.lower().replace("-", "_")
    found = get_close_matches(normal, by_normal, n=3, cutoff=0.6)
    if found:
        return by_normal[min(found, key=lambda candidate: slips(normal, candidate))]
    if len(normal) > 2:
        found = [candidate for candidate in by_normal if candidate.startswith(normal)]
    return by_normal[found[0]] if found else None


def almost(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate of which ``word`` is a typing error; a difference in digits alone does not count."""
    names = {each.lower(): each for each in reversed(list(candidates))}
    near = get_close_matches(word.lower(), names, n=1, cutoff=0.8)
    swapped = (each for each in names if sorted(each) == sorted(word.lower()) and slips(word.lower(), each) == 1)
    found = names.get(near[0] if near else next(swapped, ""))
    return None if found is None or _DIGITS.sub("", found) == _DIGITS.sub("", word) else found


def close(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that differs from ``word`` in few characters."""
    return next(iter(get_close_matches(word, candidates, n=1, cutoff=0.75)), None)


def slips(word: str, meant: str) -> int:
    """How many letters were left out, added, mistaken or swapped with the next."""
    before: list[int] = []
    row = list(range(len(meant) + 1))
    for i, letter in enumerate(word, 1):
        older, before, row = before, row, [i]
        for j, wanted in enumerate(meant, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == meant[j - 2] and word[i - 2] == wanted:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
    return row[-1]


# ---------------------------------------------------------------- masks


MASK: Final = "***"

_ANYTHING: Final = r"(?:(?!:-)[^}])*"
# Behind a name in capitals there is a default that has lost its hyphen rather than the argument of a resolver.
_RESOLVER: Final = r"(?![A-Z0-9_]+:)[A-Za-z][A-Za-z0-9_-]*"
_BODY: Final = rf"(?:[A-Za-z_][A-Za-z0-9_]*(?::\?{_ANYTHING})?|{_RESOLVER}:(?!-){_ANYTHING})"
REFERENCE: Final = re.compile(rf"\$\{{{_BODY}\}}")
"""One substitution without a default: it shows the location of a secret, not its value."""

SECRET_NAME: Final = re.compile(
    r"(.*[_-])?(pwd?|pass(word|wd|wort)?|(pass)?phrase|secrets?|tokens?|credentials?|keys?)", re.I
)
"""Names of fields that hold secrets in every kind; used where the kind, and so the model, is not known."""

_USER: Final = re.compile(r"(?<=://)[^\s:@/?#]+(?=@)")
_CREDENTIALS: Final = re.compile(r"(?<=://)([^\s:@/?#]*:)(\S*)(?=@)")
_QUERY: Final = re.compile(r"([?&][^\s=&#]+=)([^\s&#\"']+)")


def mask_url(text: str) -> str:
    """The text with the passwords and query values of the URLs in it replaced, and names without a password."""
    if "://" not in text:
        return text
    return _QUERY.sub(rf"\1{MASK}", _CREDENTIALS.sub(rf"\1{MASK}", _USER.sub(MASK, text)))


def credentials_in(text: str) -> list[str]:
    """The texts that `mask_url` hides."""
    if "://" not in text:
        return []
    found = [match[0] for match in _USER.finditer(text)]
    return found + [match[2] for secret in (_CREDENTIALS, _QUERY) for match in secret.finditer(text)]


# ---------------------------------------------------------------------- lines of files

_IN_URL = re.compile(r"(?<=://)([^\s:@/]*:|(?=[^\s:@/]+@))(\S+)(?=@)")
_IN_URL_WITH_SPACES = re.compile(r"(?<=://)([^\s:@/\"'#]*:)([^\"'#,{}\[\]]+)(?=@)")
_BARE_CREDENTIALS = re.compile(r"(?<![^\s\"'\[{(,=/])([^\s:@/\"']+:)(?!//)([^\s@]+)(?=@)")  # without a scheme
_BARE_USER = re.compile(r"(?<![^\s\"'\[{(,=/])()([^\s:@/\"',\[\]{}]+)(?=@[\w.\[\]-]+:\d)")
_QUERY_VALUE = re.compile(r"([?&][^\s=&]+=)([^\s&\"']+)")
_FIELD_OF_SECRET = re.compile(
    r"(?:(?<!stores\.)(?:pwd?|pass(?:word|wd)?|(?:pass)?phrase|secret|token|credential)(?:\.[\w-]+)+(?=\s*=)|"
    r"pwd?|pass(?:word|wd)?|(?:pass)?phrase|secrets?|tokens?|credentials?|keys?|"
    r"encrypt(?=[\"']?\s*[:=]\s*[^\s{]|[\"']?\s*:\s*$))"  # which may be a shorthand for its keys
    r"[\"']?\s*[:=](?!//)\s*(?![:=])",
    re.IGNORECASE,
)
_TEXT = r"(?:\"[^\"\\]*\"|'[^'\\]*')"
_QUOTED = re.compile(rf"(?:{_TEXT}|\[\s*{_TEXT}(?:\s*,\s*{_TEXT})*\s*\])(?=\s*[,}}])")
"""A text, or a list of texts, after which a mapping in brackets goes on or ends."""
_VISIBLE = re.compile(r"\S")
_REFERENCE = re.compile(rf"([\"']?)\$\{{{_BODY}\}}\1")
_BLOCK_SCALAR = re.compile(r":\s*[|>][-+0-9]*\s*(?:#.*)?$")
"""A key below which also a line that looks like a key is text."""
_FIELD = re.compile(r"\s*(?:-\s+)*[\"']?[\w.-]+[\"']?\s*[:=]")
_LINES_ABOVE: Final = 20
_SHORTEST: Final = 4


def starred_line(number: int, line_at: Callable[[int], str], judged: Sequence[tuple[int, int]] | None = None) -> str:
    """A line of a file with stars for apparent secrets, one for one, so that columns stay correct.

    ``judged``: the file could be parsed, and these columns hold keys of its mappings, for which other code decides.
    """
    line = line_at(number)
    for credentials in (_IN_URL, _IN_URL_WITH_SPACES, _BARE_CREDENTIALS, _BARE_USER, _QUERY_VALUE):
        line = credentials.sub(lambda match: match[1] + _stars(match[2]), line)
    match = _FIELD_OF_SECRET.search(line)
    if match is None and judged is None:
        # A list item or the next line of a string belongs to the nearest line above that is indented less.
        indent, is_field = _indent(line), _FIELD.match(line) is not None
        for above in range(number - 1, max(number - _LINES_ABOVE, 0), -1):
            head = line_at(above)
            if _FIELD.match(head) and _indent(head) <= indent - is_field:
                inside = _FIELD_OF_SECRET.search(head) and (not is_field or _BLOCK_SCALAR.search(head))
                return _starred(line, indent) if inside else line
        return line
    while match is not None:
        end = match.end()
        if not any(start <= match.start() < stop for start, stop in judged or ()):
            end = _secret_end(line, end)
            line = _starred(line, match.end(), end)
        match = _FIELD_OF_SECRET.search(line, end)
    return line


def _starred(line: str, start: int, end: int | None = None) -> str:
    """The line with stars from ``start`` to ``end``, but for spaces and references."""
    end = len(line) if end is None else end
    return line[:start] + _stars(line[start:end]) + line[end:]


def hidden_by(stars: str, line: str) -> list[str]:
    """The texts that the stars of a starred line have replaced."""
    hidden = "".join(each if star == "*" else " " for each, star in zip(line, stars, strict=True))
    return [text for each in hidden.split() if len(text := each.strip("*&!'\"[]{},:")) >= _SHORTEST]


def without(text: str, secrets: Iterable[str]) -> str:
    """The text with masks for these secrets."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


def _secret_end(line: str, start: int) -> int:
    """Where a secret that begins at ``start`` ends: with its line, where that is not beyond doubt."""
    match = _QUOTED.match(line, start)
    if match is None or "{" not in line[:start] or any(line.count(quote, match.end()) % 2 for quote in "\"'"):
        return len(line)
    return match.end()


def _stars(text: str) -> str:
    """Stars for all but spaces and substitutions with their quotes, which show a secret's location, not its value."""
    stars = _VISIBLE.sub("*", text)
    for match in _REFERENCE.finditer(text):
        stars = stars[: match.start()] + match[0] + stars[match.end() :]
    return stars


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
