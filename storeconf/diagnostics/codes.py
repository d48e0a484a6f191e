"""The one table of diagnostic codes. A code is stable: it never changes its meaning and is never reused.

1xx reading, 2xx layers, 3xx variables and overrides, 4xx interpolation, 5xx fields and values, 6xx structure,
7xx plugins, 8xx warnings.

Longer than other modules, because it is a table.
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
    """The meaning of a diagnostic code: a short title in kebab case, one sentence, and the remedy."""

    title: str
    explanation: str
    remedy: str


CODES: Final[Mapping[str, Code]] = MappingProxyType(
    {
        # ---------------------------------------------------------------- 1xx reading
        "SC101": Code(
            "file-not-found",
            "The file does not exist.",
            "Correct the name, or start in the right directory: paths, including STORECONF_FILE, are relative to the "
            "working directory. In a container, check that the file is in the image or mounted.",
        ),
        "SC102": Code(
            "not-a-file",
            "The path is a directory, a device or a pipe, not a regular file.",
            "Name a regular file. Docker creates a directory where a file to be mounted does not exist: remove the "
            "directory and write the file before the container starts again.",
        ),
        "SC103": Code(
            "unreadable-file",
            "The operating system does not let storeconf read the file.",
            "Fix the cause in the message: let the user who runs the application read the file and search the "
            "directories above it, or replace a broken symbolic link.",
        ),
        "SC104": Code(
            "unknown-format",
            "The file's name does not show whether it contains YAML, TOML or JSON.",
            "Give the file a name that ends in .yaml, .yml, .toml or .json. A pipe has no such name: write a file.",
        ),
        "SC105": Code(
            "too-large",
            "The file is larger, or contains more values or longer keys, than a layout may.",
            "Check first that it is the right file, not a log or a dump. Split a layout that is really so large into "
            "files, and list them under `extends` in the main one.",
        ),
        "SC106": Code(
            "not-text",
            "The file contains bytes or characters that are not allowed in a UTF-8 text.",
            "Save the file as UTF-8. `iconv -f latin1 -t utf-8 old.yaml > new.yaml` converts one from an older "
            "editor; remove a control character that was pasted along.",
        ),
        "SC107": Code(
            "syntax",
            "The text breaks the rules of its format.",
            "Look at the marked location and at the lines just above it. Usually a bracket, a quotation mark or a "
            "colon is missing, or lines are indented by tabs or unevenly.",
        ),
        "SC108": Code(
            "duplicate-key",
            "A mapping contains the same key twice.",
            "Keep one of them and remove the other, or give one of them another name.",
        ),
        "SC109": Code(
            "too-deep",
            "Mappings and lists are nested deeper than 100 levels.",
            "No layout needs so many levels. Look for an opening bracket that is repeated or never closed, or for the "
            "program that wrote the file.",
        ),
        "SC110": Code(
            "bad-alias",
            "A YAML alias has no anchor before it, or is inside its own anchor.",
            "Put the anchor (`&common`) above the first alias that uses it, or correct its name. A string that begins "
            "with `*` needs quotation marks.",
        ),
        "SC111": Code(
            "alias-bomb",
            "YAML aliases expand to more than 10,000 values.",
            "Use aliases for settings, not for other aliases: each level multiplies the one below it. A default "
            "factory is a better way to many equal stores.",
        ),
        "SC112": Code(
            "tag",
            "A YAML value has a tag, and storeconf does not support tags.",
            "Remove the tag. For a variable or a secret, write a substitution, `${NAME}` or `${file:PATH}`; to make a "
            "value a string, put it in quotation marks.",
        ),
        "SC113": Code(
            "several-documents",
            "A YAML file contains more than one document.",
            "Keep one document per file. Differences between environments belong under `environments`, or in an "
            "overlay such as storeconf.production.yaml.",
        ),
        "SC114": Code(
            "bad-key",
            "A key is a list or a mapping instead of a string.",
            "Replace a template's braces (`{{ … }}`) before storeconf reads the file, or write storeconf's own form, "
            "`${NAME}`. Braces that are part of a string need quotation marks.",
        ),
        "SC115": Code(
            "bad-merge",
            "A merge key `<<` must refer to a mapping or a list of mappings.",
            "Refer to the anchor of a mapping, with its asterisk: `<<: *common`.",
        ),
        "SC116": Code(
            "unsupported-value",
            "A value of a type that layouts do not have, such as a date, an infinite number or NaN.",
            'Write a duration as a string with units (`"15m"`), put a date in quotation marks, and omit a limit that '
            "should not exist.",
        ),
        "SC117": Code(
            "not-a-mapping",
            "The outermost value is not a mapping.",
            "Begin the file with `stores:` and put each store's name below it, followed by a colon and its fields.",
        ),
        "SC118": Code(
            "no-table",
            "A pyproject.toml has no table [tool.storeconf].",
            "Write the layout into that table, each store as `[tool.storeconf.stores.NAME]`, or name the file that "
            "contains it.",
        ),
        "SC119": Code(
            "more-problems",
            "The file has more problems than are shown at once.",
            "Fix the problems that are shown and run again. Usually all have one cause, such as wrong indentation or "
            "the wrong file.",
        ),
        # ---------------------------------------------------------------- 2xx layers
        "SC201": Code(
            "no-layout",
            "No file was named, and none was found.",
            "Name the file with -f, set STORECONF_FILE, or start in the directory that contains it. `storeconf init` "
            "writes a first one.",
        ),
        "SC202": Code(
            "several-layouts",
            "No file was named, and more than one was found.",
            "Name the right one with -f or STORECONF_FILE, or remove the other.",
        ),
        "SC203": Code(
            "missing-extends",
            "An extended file does not exist or can't be read.",
            "Correct the path: it is relative to the file that contains it, wherever the application starts. Check "
            "that both files are deployed.",
        ),
        "SC204": Code(
            "extends-cycle",
            "Circular extends.",
            "Remove one `extends` of the cycle. Move whatever both files need to a third file that both extend.",
        ),
        "SC205": Code(
            "bad-extends",
            "`extends` is not a list of paths, or the chain is too long.",
            "Write a list of paths, even for a single one: `extends: [base.yaml]`. Paths are literal; nothing is "
            "substituted in them.",
        ),
        "SC206": Code(
            "unknown-environment",
            "The layout does not declare the chosen environment.",
            "Correct the name in --env, in STORECONF_ENV or in the application's call, or declare the environment: a "
            "key under `environments`, if necessary with the value `{}`, or an overlay.",
        ),
        "SC207": Code(
            "bad-environments",
            "`environments`, or one of its environments, is not a mapping.",
            "Write a mapping from each environment's name to its changes; one without changes has `{}`.",
        ),
        "SC208": Code(
            "misplaced-key",
            "An environment or an overlay contains a key that is allowed only at the top of the main file.",
            "Move the key to the top of the main file. Write the settings of a single environment into its section or "
            "its overlay.",
        ),
        "SC209": Code(
            "two-overlays",
            "One file has overlays of different formats for one environment.",
            "Keep one of the overlays, and move the other's settings into it.",
        ),
        "SC210": Code(
            "bad-unset",
            "`unset` is not a list of dotted paths, or contains a path that can't be unset.",
            'Write a list of dotted paths below `stores` or `default_factory`: `unset = ["stores.main.tls"]`. In YAML '
            "and JSON, null as the value does the same.",
        ),
        "SC211": Code(
            "not-mergeable",
            "Of two layers, one has a mapping where the other has a different type.",
            "Write a mapping in both: the name, a colon, and the fields below it.",
        ),
        "SC212": Code(
            "bad-data",
            "A value passed in code can't be represented in a layout file.",
            "Pass the types that YAML has: mappings with string keys, lists, strings, numbers, True, False and None.",
        ),
        # ---------------------------------------------------------------- 3xx variables and overrides
        "SC301": Code(
            "unfitting-variable",
            "A variable that begins with STORECONF__ does not match any setting.",
            "Correct the variable's name as the hint shows, or unset it if its store does not exist any more. "
            "`storeconf env` lists every variable that matches.",
        ),
        "SC302": Code(
            "ambiguous-variable",
            "A variable matches two names that differ only in case, or in `-` and `_`.",
            "Rename one of the two, or set the value in a file: no variable can distinguish them.",
        ),
        "SC303": Code(
            "file-only-key",
            "A variable or override sets a key that only a file can set.",
            "Write it in a file: files and environments are chosen before variables and overrides are read.",
        ),
        "SC304": Code(
            "mistyped-variable",
            "A variable is similar to one that storeconf reads, but is unknown.",
            "Rename the variable as the hint shows, or unset it if nothing needs it. Put two underscores after "
            "STORECONF and between all parts.",
        ),
        "SC305": Code(
            "bad-text",
            "The value of a variable or override is not the expected list or mapping.",
            "Write a list as `[a:6379, b:6379]` and a mapping as `{verify: full}`, in quotation marks for the shell. "
            "Set a single item by its index, as in `…__CLUSTER__0`.",
        ),
        "SC306": Code(
            "set-twice",
            "Two variables set the same value.",
            "Unset one of them. Usually a value (…PASSWORD) and its file (…PASSWORD_FILE) are both set, or one name "
            "in upper and in lower case.",
        ),
        "SC307": Code(
            "unreadable-variable-file",
            "The file of a variable that ends in _FILE can't be read.",
            "Correct the path, which is relative to the working directory, or mount the secret where the application "
            "runs. To check the layout without secrets, use `storeconf validate --without-secrets`.",
        ),
        "SC308": Code(
            "bad-override-path",
            "An override's path is not valid, or refers to a missing item of a list.",
            "Write the names from the top with dots between them, and items of a list by their index: the first is 0, "
            "and one past the last appends.",
        ),
        # ---------------------------------------------------------------- 4xx interpolation and resolvers
        "SC401": Code(
            "bad-substitution",
            "A `${` does not begin a valid substitution.",
            "Close the brace, or write one of `${NAME}`, `${NAME:-default}`, `${NAME:?message}` and `${file:PATH}`. "
            "Write a literal `${` as `$${`.",
        ),
        "SC402": Code(
            "unset-name",
            "A substitution refers to an unset variable and has no default.",
            "Set the variable for the process that loads the layout, or give it a default: `${NAME:-default}`. To "
            "check the layout where it can't be set, use `storeconf validate --without-secrets`.",
        ),
        "SC403": Code(
            "unreadable-secret",
            "The file of a substitution does not exist or can't be read.",
            "Mount the secret where the application runs, or correct the path. To check the layout without secrets, "
            "use `storeconf validate --without-secrets`.",
        ),
        "SC404": Code(
            "required-value",
            "A value that a substitution requires with `:?` is unset or empty.",
            "Set it, as the message asks: the author of the layout allows no default here. To check the layout where "
            "it can't be set, use `storeconf validate --without-secrets`.",
        ),
        "SC405": Code(
            "resolver-failed",
            "A plugin's resolver failed, or returned something other than a string.",
            "Read the resolver's own message after its name: its service may be down, or refuse the credentials. To "
            "check the layout without it, use `storeconf validate --without-secrets`.",
        ),
        "SC406": Code(
            "unsafe-url-part",
            "A value inserted into a URL contains a character that has a meaning there.",
            "Set credentials in the fields `username` and `password`, which take any character, or use one "
            "substitution for the whole URL.",
        ),
        # ---------------------------------------------------------------- 5xx fields and values
        "SC501": Code(
            "unknown-field",
            "The mapping has no field of that name.",
            "Correct the name as the hint shows, or remove the field. Notes of your own go under top-level keys that "
            "begin with `x-`.",
        ),
        "SC502": Code(
            "missing-field",
            "A required field is missing.",
            "Add the field, here or in a higher layer. If a layer should have set it, check that layer's names and "
            "that it is read.",
        ),
        "SC503": Code(
            "wrong-type",
            "The value is not of the field's type.",
            "Write the value in the form that the message asks for. In a file, a quoted number is a string, also in "
            "JSON and TOML.",
        ),
        "SC504": Code(
            "bad-value",
            "The value has the right type, but the field does not accept it.",
            "Write one of the values, or a value in the range, that the message contains.",
        ),
        "SC505": Code(
            "bad-version",
            "storeconf does not support this version of the configuration language.",
            "Write `version: 1`, or omit it. If the file is written for a newer language, install a newer storeconf.",
        ),
        "SC506": Code(
            "no-kind",
            "A store or default factory has none of `type`, `parent` and `use`.",
            "Add one: `type` for a store with its own resource, `parent` for a namespace of another store, `use` for "
            "another name. A store that exists only in an environment or overlay is usually a misspelt name.",
        ),
        "SC507": Code(
            "two-kinds",
            "A store or default factory has more than one of `type`, `parent` and `use`.",
            "Keep one and remove the others. A child has its parent's backend, so it has no `type`.",
        ),
        "SC508": Code(
            "field-of-another-kind",
            "The field belongs to stores of another kind.",
            "Remove the field, or change `type` to one that has it.",
        ),
        "SC509": Code(
            "bad-name",
            "The name is not allowed for a store, an environment or a namespace.",
            "Rename it: letters, digits, `_` and `-`, with a letter or digit at both ends and no `__`.",
        ),
        "SC510": Code(
            "exclusive-fields",
            "Exactly one of several fields is required.",
            "Keep one of them. To replace one that a lower layer sets, write the other into a higher layer: it drops "
            "the first.",
        ),
        # ---------------------------------------------------------------- 6xx structure
        "SC601": Code(
            "unknown-store",
            "A reference names a store that the layout does not declare.",
            "Correct the name as the hint shows, or declare the store under `stores`. It may come before or after the "
            "reference, or in another layer.",
        ),
        "SC602": Code(
            "cycle",
            "Circular store references.",
            "Follow the steps in the message and change one of the stores: to a root with a `type`, or to a child or "
            "alias of a store outside the cycle.",
        ),
        "SC603": Code(
            "shared-namespace",
            "Two children of one parent have the same namespace.",
            "For one store with two names, make one an alias with `use`; for two stores, give one of them another "
            "`namespace`.",
        ),
        "SC604": Code(
            "colliding-roots",
            "Two roots keep their keys in the same location.",
            "For one store with two names, make one an alias with `use`, or make both children of one root; for two "
            "stores, give one of them another path, database or namespace.",
        ),
        "SC605": Code(
            "parent-without-namespace",
            "A server root without a namespace can't have namespaces below it.",
            "Give the root a namespace. The keys that it wrote without one then belong to no store; they stay on the "
            "server untouched.",
        ),
        "SC606": Code(
            "shared-fallback",
            "Two stores would keep keys in one namespace of a fallback, of a mirror, or of a store that they are moved "
            "from.",
            "Give each of them a store of its own; children of one store are enough.",
        ),
        "SC607": Code(
            "bytes-only",
            "Middleware that requires bytes is used on a store of objects.",
            "Remove the middleware, disable an inherited one with `false`, or remove `objects: true` from the memory "
            "store.",
        ),
        "SC608": Code(
            "own-keys",
            "A store would be mirrored on, or moved from, keys of its own.",
            "Name a store in another place: another root, or a namespace that is not inside the store and that the "
            "store is not inside.",
        ),
        "SC609": Code(
            "unfit-for-moving",
            "`moved_from` is used with a backend that lacks an operation which it is made of.",
            "Both stores need atomic `add` and `compare_and_set`; without them, copy the data with `storeconf copy` "
            "while nobody uses the stores.",
        ),
        # ---------------------------------------------------------------- 7xx plugins
        "SC701": Code(
            "unknown-kind",
            "No backend, middleware or resolver of that name is built in or installed.",
            "Correct the name as the hint shows, or install the package that provides it into the environment that "
            "runs the application. `storeconf plugins` lists all kinds.",
        ),
        "SC702": Code(
            "broken-plugin",
            "The plugin is installed but can't be imported.",
            "Read the error at the end of the message. Install a missing module beside the plugin; otherwise upgrade "
            "the plugin, or report the error to its author. `storeconf plugins` shows the state of all.",
        ),
        "SC703": Code(
            "wrong-plugin",
            "The plugin's entry point does not refer to a class of the expected form.",
            "Only the plugin's author can fix this: the entry point of a backend refers to its model, a subclass of "
            "storeconf.Backend, not to the store; that of middleware to a storeconf.Middleware; that of a resolver to "
            "a class with `resolve`. The reference of plugins lists the methods with their parameters, and the names "
            "that no field or method can have.",
        ),
        "SC704": Code(
            "plugin-api-version",
            "The plugin was written for another version of storeconf's plugin API.",
            "Install a version of the plugin that matches this storeconf, or a storeconf that matches the plugin.",
        ),
        "SC705": Code(
            "shadowed-built-in",
            "A plugin uses the name of a built-in kind, which can't be replaced.",
            "Nothing is broken. Ask the plugin's author for another name, or add the plugin to "
            "STORECONF_DISABLE_PLUGINS if the layout does not need it.",
        ),
        "SC706": Code(
            "plugin-conflict",
            "Two distributions use the same name.",
            "Uninstall all but one of the packages in the message, or disable the others with "
            "STORECONF_DISABLE_PLUGINS.",
        ),
        "SC707": Code(
            "plugin-disabled",
            "The plugin is disabled by STORECONF_DISABLE_PLUGINS.",
            "Remove the plugin from STORECONF_DISABLE_PLUGINS, or unset that variable; or use another kind in the "
            "layout.",
        ),
        "SC708": Code(
            "plugin-failed",
            "A plugin's own code failed while its settings were read or its store was made.",
            "Report the message to the plugin's author, or use another version of the plugin; the layout may be "
            "correct.",
        ),
        "SC709": Code(
            "middleware-order",
            "Conflicting middleware order.",
            "Use only one of the kinds in the message, or ask their authors: their `after` and `before` can't all be "
            "satisfied.",
        ),
        # ---------------------------------------------------------------- 8xx warnings
        "SC801": Code(
            "risky-setting",
            "The setting is allowed, but risky.",
            "Choose the safer setting if you can. A warning does not keep the layout from being used; "
            "`acknowledge: {SC801: [PATH]}` at the top level of the layout silences it where the risk is accepted.",
        ),
        "SC802": Code(
            "removal-without-effect",
            "A layer removes a value that no lower layer sets, or disables middleware that is not inherited.",
            "Correct the path if you meant another value, or delete the line: it has no effect.",
        ),
        "SC803": Code(
            "no-environment-chosen",
            "The layout declares environments, and was loaded without one.",
            "Choose one: with --env, with STORECONF_ENV for the process, or with `environment=` in the application's "
            "call.",
        ),
        "SC804": Code(
            "unrecognized-variable",
            "A variable begins with STORECONF_, and storeconf does not read it.",
            "Unset the variable, or leave it: it does nothing. Kubernetes injects such variables for a service called "
            "storeconf; `enableServiceLinks: false` in the pod's spec prevents that, and `acknowledge: "
            '{SC804: ["*"]}` silences it.',
        ),
        "SC805": Code(
            "empty-secret-file",
            "A secret file is empty.",
            "Write the secret into the file, or unset the variable that names it. Usually the secret was created "
            "empty, or its file is mounted before it is filled.",
        ),
        "SC806": Code(
            "similar-name",
            "A variable creates a store whose name is similar to that of another.",
            "Correct the name if you meant the other store. Declare a store that is really new in a file, where "
            "others see it.",
        ),
        "SC807": Code(
            "missing-package",
            "A store needs an optional package that is not installed.",
            "Install the extra that the hint names into the environment that runs the application. If the application "
            "has it and only this environment does not, `acknowledge` the warning in the layout.",
        ),
        "SC808": Code(
            "unused-acknowledgement",
            "An entry of `acknowledge` matches no warning.",
            "Remove the entry, or correct its code or path: it silences warnings at its path and below (with `*` "
            "everywhere), and no errors.",
        ),
        "SC809": Code(
            "mistyped-overlay",
            "A file looks like the overlay of an environment, but its name is not exactly that of one.",
            "Rename the file: an overlay has the name of the file that it belongs to, the environment's name, and one "
            "of the endings yaml, yml, toml and json, in this case of letters. If the environment of the message is a "
            "new one, declare it below `environments`.",
        ),
        "SC810": Code(
            "byte-order-mark",
            "A secret file begins with a byte order mark, which becomes part of the secret.",
            "Save the file as UTF-8 without a byte order mark: an invisible character at the beginning of a password "
            "is rarely meant.",
        ),
    }
)
"""Every code with its meaning."""
