"""Plain technical English: texts of the code and the documentation avoid the words of this list.

A text is a string of the package, its docstrings included, or a line of a page. Where a pattern has no literal
replacement, the text after the arrow is an example.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import storeconf

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
PACKAGE = Path(storeconf.__file__).parent

AVOIDED = {
    r"mend(?:s|ed|ing)?\b": "fix",
    r"(?:is|are) no (?!longer|more than|less than|later|earlier|older|newer|larger|slower|other)[a-z]": "is not a",
    r"(?:are|is|was|were) said\b": "is defined",
    r"said (?:twice|first|before|here|again|once)\b": "duplicate, first defined",
    r"in a circle\b": "circular",
    r"leads? (?:in|to no|nowhere)\b": "circular, broken",
    r"for ever\b": "never expires, without end",
    r"anew\b": "again",
    r"besides[,:.;]": "also",
    r"likewise\b": "also",
    r"blanks?\b": "space",
    r"(?:is|are|was|were) left alone\b": "circuit breaker open",
    r"(?:is|are|was|were) given up\b": "timed out",
    r"endless number": "infinite number",
    r"half (?:of )?a? ?character": "unpaired surrogate",
    r"stands? for more than": "expands to more than",
    r"can't stand\b": "unexpected",
    r"wants? to stand\b": "must come",
    r"lies? in\b": "is inside",
    r"what is (?:extended|unset|read)\b": "each entry of extends",
    r"than nothing\b": "greater than zero",
    r"is taken: what": "already defined",
    r"no more(?=[.;:]|$)": "no longer",
    r"expired meanwhile\b": "expired during the copy",
    r"for none of them\b": "without one",
    r"promises kept\b": "checks passed",
    r"fits nothing\b": "does not match any setting",
    r"again and again\b": "too many",
    r"(?:is|are) told by\b": "is shown by, is known from",
    r"tells? how to\b": "see",
    r"say where\b": "set one of",
    r"thereby\b|therein\b|thereof\b|whence\b|whither\b|hence\b": "so",
}
PATTERN = re.compile("|".join(rf"(?<![\w-])(?:{pattern})" for pattern in AVOIDED), re.IGNORECASE)


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The texts of a file, each with its line."""
    content = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from enumerate(content.splitlines(), 1)
        return
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, " ".join(node.value.split())


FILES = [
    *sorted(PACKAGE.rglob("*.py")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "docs").rglob("*.py")),
    *sorted(
        path
        for place in ("examples", "plugins")
        for path in (ROOT / place).rglob("*")
        if path.suffix in (".py", ".yaml", ".toml", ".md")
    ),
]


def name(path: Path) -> str:
    """The path from the root of the repository, also of a file of the installed package."""
    return f"storeconf/{path.relative_to(PACKAGE)}" if path.is_relative_to(PACKAGE) else str(path.relative_to(ROOT))


def found(path: Path) -> list[str]:
    return [
        f"{name(path)}:{line}: {match[0]!r} in {text[max(match.start() - 40, 0) : match.end() + 40]!r}"
        for line, text in texts(path)
        for match in PATTERN.finditer(text)
    ]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_text_has_a_word_of_the_list(path: Path) -> None:
    assert found(path) == []
