"""The one table of diagnostic codes. A code is stable: it never changes its meaning and is never used again.

1xx reading, 2xx layers, 3xx variables and overrides, 4xx interpolation, 5xx fields and values, 6xx structure,
7xx plugins, 8xx warnings.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CODES", "Code"]


@dataclass(frozen=True, slots=True)
class Code:
    """What a diagnostic code stands for: a short title in kebab case, and one sentence."""

    title: str
    explanation: str


CODES: Final[Mapping[str, Code]] = MappingProxyType(
    {
        # ---------------------------------------------------------------- 1xx reading
        "SC101": Code("file-not-found", "There is no file of that name."),
        "SC102": Code("not-a-file", "The name leads to a directory, a device or a pipe, not to a regular file."),
        "SC103": Code("unreadable-file", "The operating system does not let storeconf read the file."),
        "SC104": Code("unknown-format", "The file's name does not say whether it holds YAML, TOML or JSON."),
        "SC105": Code("too-large", "The file is larger, or holds more values or longer keys, than a layout may."),
        "SC106": Code("not-text", "The file holds bytes or characters that no text in UTF-8 holds."),
        "SC107": Code("syntax", "The text breaks the rules of its format."),
        "SC108": Code("duplicate-key", "A mapping says the same key twice."),
        "SC109": Code("too-deep", "Mappings and lists are nested deeper than 100 levels."),
        "SC110": Code("bad-alias", "A YAML alias has no anchor before it, or stands inside its own anchor."),
        "SC111": Code("alias-bomb", "The aliases of a YAML file stand for more than 10,000 values."),
        "SC112": Code("tag", "A YAML value has a tag, and storeconf reads no tags."),
        "SC113": Code("several-documents", "A YAML file holds more than one document."),
        "SC114": Code("bad-key", "A key is a list or a mapping instead of a text."),
        "SC115": Code("bad-merge", "What a YAML merge key `<<` names is no mapping and no list of mappings."),
        "SC116": Code("unsupported-value", "A value that has no meaning here, such as a date or an endless number."),
        "SC117": Code("not-a-mapping", "The outermost value is not a mapping."),
        "SC118": Code("no-table", "A pyproject.toml holds no table [tool.storeconf]."),
        "SC119": Code("more-problems", "The file holds more problems than are worth showing at once."),
        # ---------------------------------------------------------------- 2xx layers
        # ---------------------------------------------------------------- 3xx variables and overrides
        # ---------------------------------------------------------------- 4xx interpolation and resolvers
        # ---------------------------------------------------------------- 5xx fields and values
        "SC501": Code("unknown-field", "The mapping has no field of that name."),
        "SC502": Code("missing-field", "A field that must be given is not there."),
        "SC503": Code("wrong-type", "The value is of another type than the field takes."),
        "SC504": Code("bad-value", "The value is of the right type, but not one that the field takes."),
        "SC505": Code("bad-version", "The version of the configuration language is not one that storeconf reads."),
        "SC506": Code("no-kind", "A store or default factory says none of what makes its kind."),
        "SC507": Code("two-kinds", "A store or default factory says more than one of what makes its kind."),
        "SC508": Code("field-of-another-kind", "The field belongs to stores of another kind."),
        "SC509": Code("bad-name", "The name can't name a store, an environment or a namespace."),
        "SC510": Code("exclusive-fields", "Of some fields exactly one must be given."),
        # ---------------------------------------------------------------- 6xx structure
        "SC601": Code("unknown-store", "A reference names a store that the layout does not declare."),
        "SC602": Code("cycle", "Stores refer to one another in a circle."),
        "SC603": Code("shared-namespace", "Two children of one parent have the same namespace."),
        "SC604": Code("colliding-roots", "Two roots keep their keys in the same place."),
        "SC605": Code("parent-without-namespace", "A server root without a namespace can't have namespaces below it."),
        # ---------------------------------------------------------------- 7xx plugins
        "SC701": Code("unknown-kind", "No backend, middleware or resolver of that name is built in or installed."),
        "SC702": Code("broken-plugin", "The plugin is installed but can't be imported."),
        "SC703": Code("wrong-plugin", "The plugin's entry point leads to something that is not what it claims to be."),
        "SC704": Code("plugin-api-version", "The plugin was made for another version of storeconf's plugin API."),
        "SC705": Code("shadowed-built-in", "A plugin claims the name of a built-in kind, which can't be replaced."),
        "SC706": Code("plugin-conflict", "Two distributions claim the same name."),
        "SC707": Code("plugin-disabled", "The plugin is switched off by STORECONF_DISABLE_PLUGINS."),
        "SC708": Code("plugin-failed", "A plugin's own code failed while its settings were read."),
        "SC709": Code("middleware-order", "Kinds of middleware contradict one another about their places."),
        # ---------------------------------------------------------------- 8xx warnings
        "SC801": Code("risky-setting", "The setting is allowed but deserves a second thought."),
    }
)
"""Every code, with its title and explanation."""
