"""Keeps secrets out of everything that is shown: their texts, the credentials of URLs, and their lines in excerpts."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from storeconf.config.fields import fields_of
from storeconf.config.suggest import nearest
from storeconf.config.tree import MISSING, TreePath, lookup

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from pydantic import BaseModel

    from storeconf._location import Diagnostic
    from storeconf.catalog import Part
    from storeconf.config.document import Document
    from storeconf.config.fields import Expect
    from storeconf.plugin import Settings

__all__ = ["MASK", "REFERENCE", "Masks", "mask_url", "secret_paths"]

MASK: Final = "***"

_SHORTEST: Final = 4
"""Shorter texts stand everywhere; hiding them would garble messages and tell what they are."""

REFERENCE: Final = re.compile(r"\$\{(?:(?!:-)[^}])*\}")
"""One substitution without a default: it tells where a secret is, not what."""

_CREDENTIALS: Final = re.compile(r"(?<=://)([^\s:@/?#]*):(\S*)(?=@)")
_QUERY: Final = re.compile(r"([?&][^\s=&#]+=)([^\s&#\"']+)")


def mask_url(text: str) -> str:
    """The text with the passwords and query values of the URLs in it replaced."""
    if "://" not in text:
        return text
    return _QUERY.sub(rf"\1{MASK}", _CREDENTIALS.sub(rf"\1:{MASK}", text))


def secret_paths(tree: Mapping[str, Any], models: Mapping[tuple[Part, str], type[Settings]]) -> Iterator[TreePath]:
    """The paths of everything in a tree that the models of its kinds take as secrets."""
    stores = tree.get("stores")
    nodes = {("stores", name): node for name, node in stores.items()} if isinstance(stores, dict) else {}
    for path, node in (*nodes.items(), (("default_factory",), tree.get("default_factory"))):
        if not isinstance(node, dict):
            continue
        model = models.get(("backend", str(node.get("type"))))
        if model is not None:
            yield from _in_model(model, node, path)
        links = node.get("middleware")
        for kind, settings in links.items() if isinstance(links, dict) else ():
            link = models.get(("middleware", kind))
            if link is None:
                continue
            here = (*path, "middleware", kind)
            if isinstance(settings, dict):
                yield from _in_model(link, settings, here)
                continue
            main: str | None = getattr(link, "shorthand_field", None)
            if main is not None and fields_of(link).expects[main].hides:
                yield here


def _in_model(model: type[BaseModel], values: Mapping[str, Any], path: TreePath) -> Iterator[TreePath]:
    expects = fields_of(model).expects
    for key, value in values.items():
        meant = key if key in expects else nearest(key, expects)  # a misspelt field holds what the right one would
        if meant is not None:
            yield from _secrets(expects[meant], value, (*path, key))


def _secrets(expect: Expect, value: Any, path: TreePath) -> Iterator[TreePath]:
    if expect.secret:
        yield path
    elif isinstance(value, dict) and expect.model is not None:
        yield from _in_model(expect.model, value, path)
    elif isinstance(value, dict) and expect.value is not None:
        for key, item in value.items():
            yield from _secrets(expect.value, item, (*path, key))
    elif isinstance(value, list) and expect.item is not None:
        for index, item in enumerate(value):
            yield from _secrets(expect.item, item, (*path, index))
    elif expect.hides:
        yield path


class Masks:
    """What to hide: the texts of secrets, and the places where files hold them."""

    def __init__(self, texts: Collection[str], documents: Iterable[Document], paths: Iterable[TreePath]) -> None:
        self._documents = {document.file: document for document in documents}
        self._spans: dict[tuple[str, int], list[tuple[int, int | None]]] = {}
        found = set(texts)
        for path in paths:
            for document in self._documents.values():
                found.update(self._in_document(document, path))
        # Long ones first, for one may hold another.
        hidden = sorted((text for text in found if len(text) >= _SHORTEST), key=len, reverse=True)
        self._texts = re.compile("|".join(map(re.escape, hidden))) if hidden else None

    def text(self, text: str) -> str:
        """The text without secrets."""
        text = mask_url(text)
        return text if self._texts is None else self._texts.sub(MASK, text)

    def diagnostic(self, each: Diagnostic) -> Diagnostic:
        """The diagnostic without secrets, and with the lines that it is about."""
        excerpt = each.excerpt
        document = self._documents.get(each.file or "")
        if not excerpt and document is not None and each.line is not None:
            notes = (note.line for note in each.notes if note.file == each.file and note.line is not None)
            excerpt = document.excerpt(each.line, *notes)
        return replace(
            each,
            message=self.text(each.message),
            hint=None if each.hint is None else self.text(each.hint),
            notes=tuple(replace(note, message=self.text(note.message)) for note in each.notes),
            excerpt=tuple((number, self._line(each.file or "", number, line)) for number, line in excerpt),
        )

    def _line(self, file: str, number: int, line: str) -> str:
        for start, end in self._spans.get((file, number), ()):
            end = len(line) if end is None else end
            line = line[:start] + "*" * len(line[start:end]) + line[end:]
        return line if self._texts is None else self._texts.sub(lambda match: "*" * len(match[0]), line)

    def _in_document(self, document: Document, path: TreePath) -> Iterator[str]:
        """The texts that a file says at ``path``, in general and for any environment; notes their places."""
        environments = document.value.get("environments")
        names = environments if isinstance(environments, dict) else {}
        for prefix in ((), *(("environments", name) for name in names)):
            value = lookup(document.value, (*prefix, *path))
            location = None if value is MISSING else document.location((*prefix, *path))
            if location is None or (isinstance(value, str) and REFERENCE.fullmatch(value)):
                continue
            last = location.end_line or location.line
            for line in range(location.line, last + 1):
                start = location.column - 1 if line == location.line else 0
                end = location.end_column - 1 if line == last and location.end_column is not None else None
                self._spans.setdefault((document.file, line), []).append((start, end))
            yield str(value)
