"""Which values are secrets, and the one redactor that hides them in everything that is shown.

Longer than other modules, because it can be checked only as a whole: all secrets that are known, and all doors.

Secrets enter through files, ``_FILE`` variables and resolvers, whose texts are tainted by `Redactor.taint`; through the
fields that models mark as secret; and in URLs. The redactor is made before the first file is read and learns them all.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Final, NewType
from urllib.parse import quote, unquote

from storeconf._text import (
    MASK,
    REFERENCE,
    SECRET_NAME,
    broken,
    credentials_in,
    escaped_json,
    mask_url,
    nearest,
    starred_line,
)
from storeconf.config.fields import fields_of
from storeconf.config.tree import Items, Placeholder, Tainted, TreePath, leaves, lookup
from storeconf.diagnostics import Diagnostic
from storeconf.diagnostics.codes import CODES
from storeconf.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pydantic import BaseModel

    from storeconf.catalog import Catalog
    from storeconf.config.document import Document
    from storeconf.config.fields import Expect
    from storeconf.config.layers import Layer
    from storeconf.diagnostics import Finding
    from storeconf.diagnostics.render import Format
    from storeconf.plugin import ValueSource

__all__ = ["Printer", "Redacted", "Redactor", "looks_secret", "secret_values", "secrets_in"]

Redacted = NewType("Redacted", str)
"""A text without secrets. Only this module makes it, and nothing else is printed."""

_SHORTEST: Final = 4
"""Shorter texts occur everywhere; masking them would garble messages and reveal them."""

_NAMES: Final = ("password", "passwd", "passphrase", "secret", "token", "credentials")
_PUBLIC: Final = frozenset({"type", "parent", "use", "description", "namespace", "middleware", "max_stores"})
_BASES: Final = ("parent", "use")
"""The fields of stores without a type."""
_SUBSTITUTION: Final = re.compile(r"\$\{[^}]*\}")
_OPERAND: Final = re.compile(r"\$\{[^}]*?:-([^}]*)\}")


_CERTAIN: Final = 8
"""A secret of so many characters that is not one word or number is in no text by chance."""
_WORD: Final = re.compile(r"[^\W\d_]+|\d+")
_WORDS: Final = re.compile(r"(?<![\w.])(?:[a-z]+|[0-9.]*[0-9])(?![\w])")
_COMMON: Final = frozenset({"6379", "26379", "127.0.0.1", "localhost", "true", "false", "null", "none"}) | frozenset(
    ["can't", "connect", "connection", "refused", "failed", "error", "timed", "login", "server", "client", "password"]
)
"""Values that nearly every layout has, also where it leaves them out, and words of errors at run time."""


@dataclass(eq=False, repr=False)
class Redactor:
    """Knows the secrets of one reading, and hides them; ``has_sources``: some of them can be read again.

    The fields of secrets are found in ``layers`` and in their ``documents``, by the kinds that ``tree`` names; these
    are looked through only when something is shown.
    """

    catalog: Catalog
    layers: list[Layer]
    documents: list[Document]
    tree: Mapping[str, Any] = field(default_factory=dict)
    has_sources: bool = False
    _texts: set[str] = field(default_factory=set)

    def taint(self, text: str, source: ValueSource | None = None) -> Tainted:
        """Mark a text as secret; ``source`` reads it again."""
        self._learn(text)
        return self.around(text, MASK, source=source)

    def around(self, text: str, shown: str, *, whole: bool = True, source: ValueSource | None = None) -> Tainted:
        """Mark a text that contains secrets which are marked already, or a default of one."""
        self.has_sources |= source is not None
        return Tainted(text, shown, whole=whole, source=source)

    # ------------------------------------------------------------------ the doors

    def text(self, text: str) -> Redacted:
        """A text of storeconf's own, without secrets."""
        text = mask_url(text)
        hidden = self._whole.sub(MASK, text) if self._whole is not None and self._may_hold_one(text) else text
        return Redacted(hidden)

    def __call__(self, text: str) -> Redacted:
        """The same as `foreign`, for all code that asks a layout to hide its secrets."""
        return self.foreign(text)

    def foreign(self, text: str) -> Redacted:
        """A text that other code made of values, such as a plugin's exception: no part of a secret stays in it."""
        text, shown, at = self.text(text), [], 0
        windows = self._windows
        while at < len(text):
            # Spellings of one secret may begin alike: each is judged by its own part.
            ends = [(_end_of_part(text, at, secret), secret) for secret in windows.get(text[at : at + _SHORTEST], ())]
            parts = [text[at:end] for end, secret in ends if _reveals(text[at:end], secret)]
            hidden = max((part for part in parts if part not in self._words), key=len, default="")
            shown.append(MASK if hidden else text[at])
            at += len(hidden) or 1
        return Redacted("".join(shown))

    def diagnostic(self, each: Finding) -> Diagnostic:
        """A diagnostic without secrets, and with the lines that it is about."""
        excerpt = each.excerpt if isinstance(each, Diagnostic) else ()  # which a reader makes of a broken file
        document = next((document for document in self.documents if document.file == each.file), None)
        if not excerpt and document is not None and each.line is not None:
            notes = (note.line for note in each.notes if note.file == each.file and note.line is not None)
            excerpt = tuple(self._excerpt(document, each.line, *notes))
        return Diagnostic(
            each.code,
            self.text(each.message),
            each.severity,
            None if each.path is None else self.text(each.path),
            each.file,
            each.line,
            each.column,
            each.end_line,
            each.end_column,
            each.variable,
            each.layer,
            None if each.hint is None else self.text(each.hint),
            tuple(replace(note, message=self.text(note.message)) for note in each.notes),
            excerpt=tuple((number, self._starred(line)) for number, line in excerpt),
        )

    def slipped(self, text: str) -> set[str]:
        """The secrets in a text that is made of dumped values; short ones and single words may mean something else."""
        if self._certain is None or not self._may_hold_one(text):
            return set()
        return set(self._certain.findall(text))

    def shows(self, text: str) -> bool:
        """Whether a text is shown on purpose: a password may also be the name of a store."""
        return any(text in public for public in (*self._public[0], *self._public[1]))

    # ------------------------------------------------------------------ inside

    def _learn(self, text: str) -> None:
        if len(text) >= _SHORTEST and text != MASK:
            self._texts.update(each for each in _spellings(text) if len(each) >= _SHORTEST)
            for name in ("_all", "_whole", "_certain", "_starts", "_windows"):
                self.__dict__.pop(name, None)

    @cached_property
    def _spans(self) -> dict[tuple[str, int], list[tuple[int, int | None]]]:
        """Where documents hold secrets, by file and line; learns their texts."""
        spans: dict[tuple[str, int], list[tuple[int, int | None]]] = {}
        for document in self.documents:
            sections = document.value.get("environments")
            names = sections if isinstance(sections, dict) else {}
            for prefix, node in ((), document.value), *((("environments", name), names[name]) for name in names):
                for path, value in secret_values(node, self.tree, self.catalog):
                    location = None if self._known(value) else document.location((*prefix, *path))
                    if location is None:
                        continue
                    last = location.end_line or location.line
                    for line in range(location.line, last + 1):
                        start = location.column - 1 if line == location.line else 0
                        end = location.end_column - 1 if line == last and location.end_column is not None else None
                        spans.setdefault((document.file, line), []).append((start, end))
        return spans

    @cached_property
    def _all(self) -> frozenset[str]:
        """The texts of all secrets."""
        self._spans  # noqa: B018 - learns the documents' secrets
        for node in (self.tree, *(layer.data for layer in self.layers)):
            for _, value in secret_values(node, self.tree, self.catalog):
                self._known(value)
            for _, value in leaves(node):
                for text in credentials_in(value) if isinstance(value, str) else ():
                    self._known(text)
        return frozenset(self._texts - {MASK})

    @cached_property
    def _whole(self) -> re.Pattern[str] | None:
        return _any_of(each for each in self._all if each not in self._words)

    @cached_property
    def _certain(self) -> re.Pattern[str] | None:
        return _any_of(each for each in self._all if len(each) >= _CERTAIN and not _WORD.fullmatch(each))

    @cached_property
    def _public(self) -> tuple[set[str], set[str]]:
        """The texts of the layout that are shown: names, and the values that are not secret."""
        names = {document.file for document in self.documents}
        values = set()
        for node in (self.tree, *(layer.data for layer in self.layers), *(each.value for each in self.documents)):
            hidden = {path for path, _ in secret_values(node, self.tree, self.catalog)}
            for path, value in leaves(node):
                if path not in hidden:
                    names.update(map(str, path))
                    if path[:1] != ("environments",):
                        values.add(mask_url(value.shown if isinstance(value, Tainted) else str(value)))
        return names, values

    @cached_property
    def _words(self) -> frozenset[str]:
        """Words of the layout and of storeconf's messages: a mask would garble these, and tell that one is a secret."""
        names, values = self._public
        own = (text for code in CODES.values() for text in (code.title, code.explanation, code.remedy))
        kinds = (*self.catalog.backend_names(), *self.catalog.middleware_names())
        words = {word for text in (*own, *kinds, *names, *values) for word in _WORDS.findall(text)}
        return frozenset(words | names | _COMMON)

    @cached_property
    def _windows(self) -> dict[str, list[str]]:
        """The secrets that contain a text of the shortest length."""
        found: dict[str, list[str]] = {}
        for text in self._all - self._words:
            for at in range(len(text) - _SHORTEST + 1):
                found.setdefault(text[at : at + _SHORTEST], []).append(text)
        return found

    def _known(self, value: object) -> bool:
        """Learn the texts of a secret value; return whether its text in a file reveals nothing."""
        text = str(value)
        if isinstance(value, Placeholder) or (isinstance(value, str) and REFERENCE.fullmatch(text)):
            return True
        broken_ones = (each[2:-1] for each in _SUBSTITUTION.findall(text) if not REFERENCE.fullmatch(each))
        for each in (text, *_OPERAND.findall(text), *broken_ones):
            if len(each) >= _SHORTEST:
                self._texts.update(spelling for spelling in _spellings(each) if len(spelling) >= _SHORTEST)
        return not text

    def _excerpt(self, document: Document, *numbers: int) -> Iterator[tuple[int, str]]:
        spans = self._spans
        for number, line in document.excerpt(*numbers, masked=False):
            for start, end in spans.get((document.file, number), ()):
                line = line[:start] + "*" * len(line[start:end]) + ("" if end is None else line[end:])
            judged = [columns for path, columns in document.keys(number) if _is_judged(document.value, path)]
            yield number, starred_line(number, {number: line}.__getitem__, judged)

    def _starred(self, line: str) -> str:
        if self._whole is None or not self._may_hold_one(line):
            return line
        return self._whole.sub(lambda match: "*" * len(match[0]), line)

    @cached_property
    def _starts(self) -> frozenset[str]:
        return frozenset(text[:_SHORTEST] for text in self._all)

    def _may_hold_one(self, text: str) -> bool:
        """Whether a secret may begin in the text: there may be thousands of them, and usually none is there."""
        starts = self._starts
        return any(text[at : at + _SHORTEST] in starts for at in range(len(text) - _SHORTEST + 1))


def _any_of(texts: Iterable[str]) -> re.Pattern[str] | None:
    # Long ones first, for one may hold another.
    hidden = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, hidden))) if hidden else None


@dataclass(eq=False, repr=False)
class Printer:
    """Makes all that one command prints, without the secrets of the layouts that it has read.

    A method for each kind of text: problems, messages, data that was masked value by value, and stored data.
    """

    redactors: list[Redactor] = field(default_factory=list)

    def problems(
        self,
        diagnostics: Sequence[Diagnostic],
        form: Format = "text",
        *,
        color: bool,
        width: int | None,
        layout: str | None = None,
    ) -> Redacted:
        """Diagnostics, which a redactor has made."""
        from storeconf.diagnostics.render import render

        return Redacted(render(diagnostics, form, color=color, width=width, layout=layout))

    def message(self, text: str, label: str = "", *, width: int | None = None, taken: int = 0) -> Redacted:
        """A message in lines of ``width``; its ``label``, of ``taken`` columns, is shown even if a secret is in it."""
        for redactor in self.redactors:
            text = redactor.foreign(text)
        return Redacted(label + "\n  ".join(broken(text, width, taken, 2)))

    def data(self, text: str) -> Redacted:
        """Text made of values that were masked as they were dumped."""
        return Redacted(self._checked(text))

    def json(self, value: Any, *, stored: bool = False) -> Redacted:
        """JSON of such values, or of stored ones, on several lines, with nothing in it that a terminal would obey."""
        value = value if stored else self._in(value)
        text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
        return Redacted(escaped_json(text))

    def stored(self, text: str) -> Redacted:
        """Mark the content of a store, or a backend's name for it, as text that is never a setting."""
        return Redacted(text)

    def _in(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._checked(value)
        if isinstance(value, dict):
            return {key: self._in(each) for key, each in value.items()}
        return [self._in(each) for each in value] if isinstance(value, list | tuple) else value

    def _checked(self, text: str) -> str:
        for redactor in self.redactors:
            for secret in redactor.slipped(text):
                if not any(other.shows(secret) for other in self.redactors):
                    text = text.replace(secret, MASK)
        return text


def _spellings(text: str) -> Iterator[str]:
    """How a secret may be written in a message: as it is, escaped, as in a URL, and each of its lines."""
    yield text
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield repr(text)[1:-1]
    yield repr(text.encode(errors="surrogatepass"))[2:-1]
    yield quote(text, safe="")
    yield unquote(text)
    yield from text.splitlines()


def _end_of_part(text: str, at: int, secret: str) -> int:
    """Where the longest part of a secret ends that begins at ``at``."""
    end = at + _SHORTEST
    while end < len(text) and text[at : end + 1] in secret:
        end += 1
    return end


def _reveals(part: str, secret: str) -> bool:
    """Whether a part tells something of the secret: half of it, or a mixture; other text may be an unrelated word."""
    return len(part) >= (len(secret) + 1) // 2 or (
        any(map(str.isdigit, part)) and any(map(str.isalpha, part)) and "://" not in part
    )


# ---------------------------------------------------------------------- which values are secrets


def secret_values(node: Any, tree: Mapping[str, Any], catalog: Catalog) -> Iterator[tuple[TreePath, Any]]:
    """The values in the secret fields of a layer or a tree, with their paths.

    Another layer may set the type of a store, so that of ``tree`` counts too; a store whose type is not known may be of
    any. A field that the type does not have is a secret if its name looks like one.
    """
    if not isinstance(node, dict):
        return
    stores = node.get("stores")
    nodes = [(("stores", name), store) for name, store in stores.items()] if isinstance(stores, dict) else []
    if isinstance(stores, list):
        yield from _by_names(stores, ("stores",))
    if isinstance(node.get("environments"), list):
        yield from _by_names(node["environments"], ("environments",))
    merged = tree.get("stores")
    for path, store in (*nodes, (("default_factory",), node.get("default_factory"))):
        if not isinstance(store, dict):
            yield from _by_names(store, path)
            continue
        final = tree.get("default_factory") if len(path) == 1 else None
        if len(path) == 2 and isinstance(merged, dict):
            final = merged.get(path[1])
        types = [each.get("type") for each in (store, final) if isinstance(each, dict)]
        names = dict.fromkeys(each for each in types if isinstance(each, str))
        models = [model for name in names if (model := _backend(catalog, name)) is not None]
        if not models and not any(key in each for each in (store, final) if isinstance(each, dict) for key in _BASES):
            models = _all_backends(catalog)
        yield from _in_models(models, {key: each for key, each in store.items() if key not in _PUBLIC}, path)
        links = store.get("middleware")
        if not isinstance(links, dict):
            yield from _by_names(links, (*path, "middleware"))
            continue
        for kind, settings in links.items():
            link = _middleware(catalog, kind)
            main: str | None = getattr(link, "shorthand_field", None)
            here = (*path, "middleware", kind)
            if isinstance(settings, dict) and link is not None:
                yield from _in_models([link], settings, here)
            elif link is not None and main is not None:
                yield from _in_field(fields_of(link).expects[main], settings, here)
            else:
                yield from _by_names(settings, here)


def secrets_in(models: Sequence[type[BaseModel]], values: Mapping[str, Any]) -> Iterator[str]:
    """The texts of the secrets among the settings of one model, or of one of several."""
    yield from (str(value) for _, value in _in_models(models, values, ()))
    for _, value in leaves(values):
        if isinstance(value, Tainted):
            yield str(value)


def _is_judged(value: Any, path: TreePath) -> bool:
    """Whether `secret_values` decides on the field at ``path``, or a mapping is there that belongs to the language."""
    inside = path[2:] if path[0] == "environments" and len(path) > 2 else path
    depth = {"stores": 2, "default_factory": 1, "environments": 2}.get(str(inside[0]))
    top = len(path) - len(inside) + min(depth or 0, len(inside))
    return depth is not None and isinstance(lookup(value, path[:top]), dict)


@lru_cache(maxsize=1024)  # one mistake is often made in many stores
def _means_secret(models: tuple[type[BaseModel], ...], name: str) -> bool:
    """Whether a field that none of the models has is a secret, by its name or by that of a similar field."""
    expects = (fields_of(model).expects for model in models)
    return looks_secret(name) or any(each[near].hides for each in expects if (near := nearest(name, each)) is not None)


def looks_secret(name: str) -> bool:
    """Whether a field of this name holds a secret in all likelihood, also where the name is misspelt."""
    return SECRET_NAME.fullmatch(name) is not None or nearest(name, _NAMES) is not None


def _backend(catalog: Catalog, name: str) -> type[BaseModel] | None:
    """The model of a type, or of the one that a misspelt name most likely means."""
    try:
        return catalog.backend(name)
    except PluginError:
        near = nearest(name, catalog.backend_names())
        return None if near in (None, name) else _backend(catalog, str(near))


def _all_backends(catalog: Catalog) -> list[type[BaseModel]]:
    """The models of all types that can be imported."""
    found = (_backend(catalog, name) for name in catalog.backend_names())
    return list(dict.fromkeys(model for model in found if model is not None))


def _middleware(catalog: Catalog, kind: str) -> type[BaseModel] | None:
    """The model of a kind, or of the one that a misspelt name most likely means."""
    try:
        return catalog.middleware(kind)
    except PluginError:
        near = nearest(kind, catalog.middleware_names())
        return None if near in (None, kind) else _middleware(catalog, str(near))


def _in_models(
    models: Sequence[type[BaseModel]], values: Mapping[str, Any], path: TreePath
) -> Iterator[tuple[TreePath, Any]]:
    """The values of a mapping in the secret fields of any of the models."""
    for key, value in values.items():
        here = (*path, key)
        expects = [fields_of(model).expects for model in models]
        known = [each[key] for each in expects if key in each]
        if known:
            for expect in known:
                yield from _in_field(expect, value, here)
            continue
        if _means_secret(tuple(models), str(key)):
            yield from _all_of(value, here)
        else:
            yield from _by_names(value, here)


def _by_names(value: Any, path: TreePath) -> Iterator[tuple[TreePath, Any]]:
    """The values whose field names look secret, in a value of unknown type."""
    if isinstance(value, dict):
        yield from _in_models([], value, path)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _by_names(item, (*path, index))


def _in_field(expect: Expect, value: Any, path: TreePath) -> Iterator[tuple[TreePath, Any]]:
    if expect.secret:
        yield from _all_of(value, path)
    elif isinstance(value, Items) and expect.item is not None:
        for index, item in value.items():
            yield from _in_field(expect.item, item, (*path, index))
    elif isinstance(value, dict) and expect.models:
        yield from _in_models(list(expect.models), value, path)
    elif isinstance(value, dict) and expect.value is not None:
        for key, item in value.items():
            yield from _in_field(expect.value, item, (*path, key))
    elif isinstance(value, list) and expect.item is not None:
        for index, item in enumerate(value):
            yield from _in_field(expect.item, item, (*path, index))
    elif expect.hides:
        yield from _all_of(value, path)
    else:
        yield from _by_names(value, path)


def _all_of(value: Any, path: TreePath) -> Iterator[tuple[TreePath, Any]]:
    """The values in a secret field, and the keys: ``{hunter2}`` is a mapping in YAML."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield (*path, key), key
            yield from _all_of(each, (*path, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _all_of(each, (*path, index))
    elif value is not None:
        yield path, value
