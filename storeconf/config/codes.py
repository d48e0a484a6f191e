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
    """What a diagnostic code stands for: a short title in kebab case, one sentence, and what to do about it."""

    title: str
    explanation: str
    remedy: str


CODES: Final[Mapping[str, Code]] = MappingProxyType(
    {
        # ---------------------------------------------------------------- 1xx reading
        "SC101": Code(
            "file-not-found",
            "There is no file of that name.",
            "Correct the name, or start in the right directory: a name counts from the working directory, also in "
            "STORECONF_FILE. In a container, check that the file is in the image or mounted.",
        ),
        "SC102": Code(
            "not-a-file",
            "The name leads to a directory, a device or a pipe, not to a regular file.",
            "Name a regular file. Docker makes a directory where a file that is to be mounted does not exist: "
            "remove the directory and write the file before the container starts again.",
        ),
        "SC103": Code(
            "unreadable-file",
            "The operating system does not let storeconf read the file.",
            "Mend what the message names: let the user who runs the application read the file and search the "
            "directories above it, or replace a symbolic link that leads nowhere.",
        ),
        "SC104": Code(
            "unknown-format",
            "The file's name does not say whether it holds YAML, TOML or JSON.",
            "Give the file a name that ends in .yaml, .yml, .toml or .json. A pipe has no such name: write a file.",
        ),
        "SC105": Code(
            "too-large",
            "The file is larger, or holds more values or longer keys, than a layout may.",
            "Check first that it is the right file: a log or a dump is easily named instead. A layout that is "
            "really so large is split into files, which the main one lists under `extends`.",
        ),
        "SC106": Code(
            "not-text",
            "The file holds bytes or characters that no text in UTF-8 holds.",
            "Save the file as UTF-8. `iconv -f latin1 -t utf-8 old.yaml > new.yaml` converts one that an older "
            "editor wrote; a control character that was pasted along is to be removed.",
        ),
        "SC107": Code(
            "syntax",
            "The text breaks the rules of its format.",
            "Look at the marked place and at the lines just above it. Mostly a bracket, a quotation mark or a colon "
            "is missing, or lines are indented by tabs or unevenly.",
        ),
        "SC108": Code(
            "duplicate-key",
            "A mapping says the same key twice.",
            "Keep the one that holds and remove the other, or give one of them another name.",
        ),
        "SC109": Code(
            "too-deep",
            "Mappings and lists are nested deeper than 100 levels.",
            "No layout needs so many levels. Look for an opening bracket that is repeated or never closed, or for "
            "the program that wrote the file.",
        ),
        "SC110": Code(
            "bad-alias",
            "A YAML alias has no anchor before it, or stands inside its own anchor.",
            "Put the anchor (`&common`) above the first place that uses it, or correct its name. A text that begins "
            "with `*` needs quotation marks.",
        ),
        "SC111": Code(
            "alias-bomb",
            "The aliases of a YAML file stand for more than 10,000 values.",
            "Let aliases name settings, not other aliases: each level multiplies what the one below stands for. "
            "Many equal stores are better made by a default factory.",
        ),
        "SC112": Code(
            "tag",
            "A YAML value has a tag, and storeconf reads no tags.",
            "Remove the tag. For a variable or a secret write a substitution, `${NAME}` or `${file:PATH}`; to make "
            "a value a text, put it in quotation marks.",
        ),
        "SC113": Code(
            "several-documents",
            "A YAML file holds more than one document.",
            "Keep one document per file. What differs per environment belongs under `environments`, or into an "
            "overlay such as storeconf.production.yaml.",
        ),
        "SC114": Code(
            "bad-key",
            "A key is a list or a mapping instead of a text.",
            "Replace a template's braces (`{{ … }}`) before storeconf reads the file, or write storeconf's own "
            "form, `${NAME}`. Braces that are part of a text need quotation marks.",
        ),
        "SC115": Code(
            "bad-merge",
            "What a YAML merge key `<<` names is no mapping and no list of mappings.",
            "Name an anchor of a mapping, with its asterisk: `<<: *common`.",
        ),
        "SC116": Code(
            "unsupported-value",
            "A value that has no meaning here, such as a date or an endless number.",
            'Write a duration as a text with units (`"15m"`), put a date into quotation marks, and leave a limit '
            "out where there should be none.",
        ),
        "SC117": Code(
            "not-a-mapping",
            "The outermost value is not a mapping.",
            "Begin the file with `stores:` and put each store's name below it, followed by a colon and its fields.",
        ),
        "SC118": Code(
            "no-table",
            "A pyproject.toml holds no table [tool.storeconf].",
            "Write the layout into that table, each store as `[tool.storeconf.stores.NAME]`, or name the file that "
            "holds it.",
        ),
        "SC119": Code(
            "more-problems",
            "The file holds more problems than are worth showing at once.",
            "Mend what is shown and run again. Mostly one cause, such as wrong indentation or the wrong file, is "
            "behind all of them.",
        ),
        # ---------------------------------------------------------------- 2xx layers
        "SC201": Code(
            "no-layout",
            "No file was named, and none could be found.",
            "Name the file with -f, set STORECONF_FILE, or start in the directory that holds it. `storeconf init` "
            "writes a first one.",
        ),
        "SC202": Code(
            "several-layouts",
            "No file was named, and more than one could be meant.",
            "Name the one that is meant with -f or STORECONF_FILE, or remove the other.",
        ),
        "SC203": Code(
            "missing-extends",
            "A file that is extended is not there or can't be read.",
            "Correct the path: it counts from the directory of the file that says it, wherever the application "
            "starts. Check that the file is deployed along with the other.",
        ),
        "SC204": Code(
            "extends-cycle",
            "Files extend each other in a circle.",
            "Remove one `extends` of the circle. What both files need goes into a third, which both extend.",
        ),
        "SC205": Code(
            "bad-extends",
            "What `extends` holds is no list of paths, or leads through too many files.",
            "Write a list of paths, also where there is one: `extends: [base.yaml]`. Paths are literal; nothing is "
            "substituted in them.",
        ),
        "SC206": Code(
            "unknown-environment",
            "The environment that was chosen is not one that the layout declares.",
            "Correct the name in --env, in STORECONF_ENV or in the application's call, or declare the environment: "
            "a key under `environments`, if need be with the value `{}`, or an overlay.",
        ),
        "SC207": Code(
            "bad-environments",
            "The environments, or what one of them changes, are no mapping.",
            "Write a mapping from each environment's name to what it changes; one that changes nothing has `{}`.",
        ),
        "SC208": Code(
            "misplaced-key",
            "An environment or an overlay holds a key that only a whole file can hold.",
            "Move the key to the top of the main file. What one environment alone needs is written into its section "
            "or its overlay.",
        ),
        "SC209": Code(
            "two-overlays",
            "One file has overlays of different formats for one environment.",
            "Keep one of the overlays, and move into it what only the other says.",
        ),
        "SC210": Code(
            "bad-unset",
            "What `unset` holds is no list of dotted paths, or names what can't be unset.",
            'Write a list of dotted paths below `stores` or `default_factory`: `unset = ["stores.main.tls"]`. In '
            "YAML and JSON, null as the value does the same.",
        ),
        "SC211": Code(
            "not-mergeable",
            "Of two layers, one has a mapping where the other has something else.",
            "Write a mapping in both: the name, a colon, and the fields below it.",
        ),
        "SC212": Code(
            "bad-data",
            "What a program gave is not what a file could hold.",
            "Give what YAML could hold: mappings with text keys, lists, texts, numbers, True, False and None.",
        ),
        # ---------------------------------------------------------------- 3xx variables and overrides
        "SC301": Code(
            "unfitting-variable",
            "A variable that begins with STORECONF__ names nothing in the layout.",
            "Correct the variable's name as the hint says, or unset it if its store is gone. `storeconf env` lists "
            "every variable that fits.",
        ),
        "SC302": Code(
            "ambiguous-variable",
            "A variable fits two names that differ in case, or in `-` and `_`, alone.",
            "Rename one of the two, or set the value in a file: no variable can tell them apart.",
        ),
        "SC303": Code(
            "file-only-key",
            "A variable or override sets what only a file can set.",
            "Write it in a file: which files and environments there are is settled before variables and overrides "
            "are read.",
        ),
        "SC304": Code(
            "misspelt-variable",
            "A variable is close to one that storeconf reads, but is not one.",
            "Rename the variable as the hint says, or unset it if nothing needs it. Two underscores stand after "
            "STORECONF and between all parts.",
        ),
        "SC305": Code(
            "bad-text",
            "The text of a variable or override is not the list or mapping that is wanted.",
            "Write a list as `[a:6379, b:6379]` and a mapping as `{verify: full}`, in quotation marks for the "
            "shell. One item alone is set by its index, as in `…__CLUSTER__0`.",
        ),
        "SC306": Code(
            "set-twice",
            "Two variables set the same value.",
            "Unset one of them. Mostly a value (…PASSWORD) and its file (…PASSWORD_FILE) are both set, or one name "
            "in capitals and in small letters.",
        ),
        "SC307": Code(
            "unreadable-variable-file",
            "The file that a variable ending in _FILE names can't be read.",
            "Correct the path, which counts from the working directory, or mount the secret where the application "
            "runs. To check the layout where no secrets are: `storeconf validate --without-secrets`.",
        ),
        "SC308": Code(
            "bad-override-path",
            "An override's path is not one, or leads to no item of a list.",
            "Write the names from the top with dots between them, and items of a list by their index: the first is "
            "0, and one past the last appends.",
        ),
        # ---------------------------------------------------------------- 4xx interpolation and resolvers
        "SC401": Code(
            "bad-substitution",
            "A `${` does not begin a valid substitution.",
            "Close the brace, or write one of `${NAME}`, `${NAME:-default}`, `${NAME:?message}` and `${file:PATH}`. "
            "A `${` that means itself is written `$${`.",
        ),
        "SC402": Code(
            "unset-name",
            "What a substitution names is not set, and it has no default.",
            "Set the variable for the process that loads the layout, or give it a default: `${NAME:-default}`. To "
            "check the layout where it can't be set: `storeconf validate --without-secrets`.",
        ),
        "SC403": Code(
            "unreadable-secret",
            "The file that a substitution names is not there or can't be read.",
            "Mount the secret where the application runs, or correct the path. To check the layout where no secrets "
            "are: `storeconf validate --without-secrets`.",
        ),
        "SC404": Code(
            "required-value",
            "A value that a substitution requires by `:?` is not set, or is empty.",
            "Set it, as the message asks: the author of the layout allows no default here. To check the layout "
            "where it can't be set: `storeconf validate --without-secrets`.",
        ),
        "SC405": Code(
            "resolver-failed",
            "A plugin's resolver failed, or gave no text.",
            "Read what the resolver itself says, behind its name: the service that it asks may be down, or refuse "
            "its credentials. To check the layout without it: `storeconf validate --without-secrets`.",
        ),
        "SC406": Code(
            "unsafe-url-part",
            "A value put into a URL holds a character that means something there.",
            "Give credentials as the fields `username` and `password`, which take any character, or the whole URL "
            "as one substitution.",
        ),
        # ---------------------------------------------------------------- 5xx fields and values
        "SC501": Code(
            "unknown-field",
            "The mapping has no field of that name.",
            "Correct the name as the hint says, or remove the field. Notes of your own go under top-level keys that "
            "begin with `x-`.",
        ),
        "SC502": Code(
            "missing-field",
            "A field that must be given is not there.",
            "Add the field, here or in a layer above. Where a layer should have given it, check that layer's names "
            "and that it is read.",
        ),
        "SC503": Code(
            "wrong-type",
            "The value is of another type than the field takes.",
            "Write the value in the form that the message asks for. In a file a quoted number is a text, also in "
            "JSON and TOML.",
        ),
        "SC504": Code(
            "bad-value",
            "The value is of the right type, but not one that the field takes.",
            "Write one of the values, or a value in the range, that the message names.",
        ),
        "SC505": Code(
            "bad-version",
            "The version of the configuration language is not one that storeconf reads.",
            "Write `version: 1`, or leave it out. If the file is written for a newer language, install a newer "
            "storeconf.",
        ),
        "SC506": Code(
            "no-kind",
            "A store or default factory says none of what makes its kind.",
            "Say what it is: `type` for a store with a place of its own, `parent` for a namespace of another, `use` "
            "for another name. A store that only an environment or overlay speaks of is mostly a misspelt one.",
        ),
        "SC507": Code(
            "two-kinds",
            "A store or default factory says more than one of what makes its kind.",
            "Keep the one that is meant and remove the others. A child takes its backend from its parent, so it has "
            "no `type`.",
        ),
        "SC508": Code(
            "field-of-another-kind",
            "The field belongs to stores of another kind.",
            "Remove the field, or change `type` to one that has it.",
        ),
        "SC509": Code(
            "bad-name",
            "The name can't name a store, an environment or a namespace.",
            "Rename it: letters, digits, `_` and `-`, with a letter or digit at both ends and no `__`.",
        ),
        "SC510": Code(
            "exclusive-fields",
            "Of some fields exactly one must be given.",
            "Keep one of them. To replace the one of a lower layer, write the other into a higher layer: it drops "
            "what it excludes.",
        ),
        # ---------------------------------------------------------------- 6xx structure
        "SC601": Code(
            "unknown-store",
            "A reference names a store that the layout does not declare.",
            "Correct the name as the hint says, or declare the store under `stores`. It may stand before, after, or "
            "in another layer than the reference.",
        ),
        "SC602": Code(
            "cycle",
            "Stores refer to one another in a circle.",
            "Follow the steps that the message shows and let one of the stores be what it was meant to be: a root "
            "with a `type`, or a child or alias of one outside the circle.",
        ),
        "SC603": Code(
            "shared-namespace",
            "Two children of one parent have the same namespace.",
            "If they are to be one store, make one an alias with `use`; if not, give one of them another `namespace`.",
        ),
        "SC604": Code(
            "colliding-roots",
            "Two roots keep their keys in the same place.",
            "If they are to be one store, make one an alias with `use`, or both children of one root; if not, give "
            "one of them another path, database or namespace.",
        ),
        "SC605": Code(
            "parent-without-namespace",
            "A server root without a namespace can't have namespaces below it.",
            "Give the root a namespace. The keys that it wrote without one then belong to no store; they stay on "
            "the server untouched.",
        ),
        "SC606": Code(
            "shared-fallback",
            "Two stores would keep keys in one namespace of a fallback.",
            "Give each of them a store of its own to fall back to; children of one store are enough.",
        ),
        "SC607": Code(
            "bytes-only",
            "Middleware that works on bytes is asked for where objects are kept.",
            "Leave the middleware out, switch an inherited one off with `false`, or let the memory store keep "
            "bytes: without `objects: true`.",
        ),
        # ---------------------------------------------------------------- 7xx plugins
        "SC701": Code(
            "unknown-kind",
            "No backend, middleware or resolver of that name is built in or installed.",
            "Correct the name as the hint says, or install the package that provides it into the environment that "
            "runs the application. `storeconf plugins` lists what is there.",
        ),
        "SC702": Code(
            "broken-plugin",
            "The plugin is installed but can't be imported.",
            "Read the error at the end of the message. A module that is missing is to be installed beside the "
            "plugin; else upgrade the plugin, or tell its author. `storeconf plugins` shows the state of all.",
        ),
        "SC703": Code(
            "wrong-plugin",
            "The plugin's entry point leads to something that is not what it claims to be.",
            "This is the author's to mend: a backend's entry point names its model, a subclass of "
            "storeconf.Backend, and not the store; middleware a storeconf.Middleware; a resolver a class with "
            "`resolve`.",
        ),
        "SC704": Code(
            "plugin-api-version",
            "The plugin was made for another version of storeconf's plugin API.",
            "Install a version of the plugin that fits this storeconf, or a storeconf that fits the plugin.",
        ),
        "SC705": Code(
            "shadowed-built-in",
            "A plugin claims the name of a built-in kind, which can't be replaced.",
            "Nothing is broken. Ask the plugin's author for another name, or name the plugin in "
            "STORECONF_DISABLE_PLUGINS if the layout needs nothing of it.",
        ),
        "SC706": Code(
            "plugin-conflict",
            "Two distributions claim the same name.",
            "Uninstall all but one of the packages that the message names, or switch the others off with "
            "STORECONF_DISABLE_PLUGINS.",
        ),
        "SC707": Code(
            "plugin-disabled",
            "The plugin is switched off by STORECONF_DISABLE_PLUGINS.",
            "Take the plugin out of STORECONF_DISABLE_PLUGINS, or unset that variable; or let the layout use "
            "another kind.",
        ),
        "SC708": Code(
            "plugin-failed",
            "A plugin's own code failed while its settings were read.",
            "Tell the plugin's author what the message says, or use another version of it; the layout may well be "
            "right.",
        ),
        "SC709": Code(
            "middleware-order",
            "Kinds of middleware contradict one another about their places.",
            "Use one of the kinds alone, or tell their authors: `after` and `before` of the kinds that the message "
            "names can't all hold.",
        ),
        # ---------------------------------------------------------------- 8xx warnings
        "SC801": Code(
            "risky-setting",
            "The setting is allowed but deserves a second thought.",
            "Choose the safer setting if you can. A warning does not keep the layout from being used, so where the "
            "risk is meant nothing need be done.",
        ),
        "SC802": Code(
            "futile-removal",
            "A layer removes what no lower layer has.",
            "Correct the path if something else was to be removed, or delete the line: what it removes is gone "
            "already.",
        ),
        "SC803": Code(
            "no-environment-chosen",
            "The layout declares environments, and was loaded for none of them.",
            "Choose one: with --env, with STORECONF_ENV for the process, or with `environment=` in the "
            "application's call.",
        ),
        "SC804": Code(
            "stray-variable",
            "A variable begins with STORECONF_, and storeconf does not read it.",
            "Unset the variable, or leave it: it does nothing. Kubernetes injects such for a service called "
            "storeconf; `enableServiceLinks: false` in the pod's spec keeps it from doing so.",
        ),
        "SC805": Code(
            "empty-secret-file",
            "The file that a variable ending in _FILE names is empty.",
            "Write the secret into the file, or unset the variable. Mostly the secret was made empty, or its file "
            "is mounted before it is filled.",
        ),
        "SC806": Code(
            "near-name",
            "A variable makes a new store whose name is almost that of another.",
            "Correct the name if the store beside it was meant. A store that is really new is better declared in a "
            "file, where others see it.",
        ),
    }
)
"""Every code, with what is known of it."""
