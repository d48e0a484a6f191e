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
        "SC201": Code("no-layout", "No file was named, and none could be found."),
        "SC202": Code("several-layouts", "No file was named, and more than one could be meant."),
        "SC203": Code("missing-extends", "A file that is extended is not there or can't be read."),
        "SC204": Code("extends-cycle", "Files extend each other in a circle."),
        "SC205": Code("bad-extends", "What `extends` holds is no list of paths, or leads through too many files."),
        "SC206": Code("unknown-environment", "The environment that was chosen is not one that the layout declares."),
        "SC207": Code("bad-environments", "The environments, or what one of them changes, are no mapping."),
        "SC208": Code("misplaced-key", "An environment or an overlay holds a key that only a whole file can hold."),
        "SC209": Code("two-overlays", "One file has overlays of different formats for one environment."),
        "SC210": Code("bad-unset", "What `unset` holds is no list of dotted paths, or names what can't be unset."),
        "SC211": Code("not-mergeable", "Of two layers, one has a mapping where the other has something else."),
        "SC212": Code("bad-data", "What a program gave is not what a file could hold."),
        # ---------------------------------------------------------------- 3xx variables and overrides
        "SC301": Code("unfitting-variable", "A variable that begins with STORECONF__ names nothing in the layout."),
        "SC302": Code("ambiguous-variable", "A variable fits two names that differ in case, or in `-` and `_`, alone."),
        "SC303": Code("file-only-key", "A variable or override sets what only a file can set."),
        "SC304": Code("misspelt-variable", "A variable is close to one that storeconf reads, but is not one."),
        "SC305": Code("bad-text", "The text of a variable or override is not the list or mapping that is wanted."),
        "SC306": Code("set-twice", "Two variables set the same value."),
        "SC307": Code("unreadable-variable-file", "The file that a variable ending in _FILE names can't be read."),
        "SC308": Code("bad-override-path", "An override's path is not one, or leads to no item of a list."),
        # ---------------------------------------------------------------- 4xx interpolation and resolvers
        "SC401": Code("bad-substitution", "A `${` does not begin a valid substitution."),
        "SC402": Code("unset-name", "What a substitution names is not set, and it has no default."),
        "SC403": Code("unreadable-secret", "The file that a substitution names is not there or can't be read."),
        "SC404": Code("required-value", "A value that a substitution requires by `:?` is not set, or is empty."),
        "SC405": Code("resolver-failed", "A plugin's resolver failed, or gave no text."),
        "SC406": Code("unsafe-url-part", "A value put into a URL holds a character that means something there."),
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
        "SC606": Code("shared-fallback", "Two stores would keep keys in one namespace of a fallback."),
        "SC607": Code("bytes-only", "Middleware that works on bytes is asked for where objects are kept."),
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
        "SC802": Code("futile-removal", "A layer removes what no lower layer has."),
        "SC803": Code("no-environment-chosen", "The layout declares environments, and was loaded for none of them."),
        "SC804": Code("stray-variable", "A variable begins with STORECONF_, and storeconf does not read it."),
        "SC805": Code("empty-secret-file", "The file that a variable ending in _FILE names is empty."),
        "SC806": Code("near-name", "A variable makes a new store whose name is almost that of another."),
    }
)
"""Every code, with its title and explanation."""
