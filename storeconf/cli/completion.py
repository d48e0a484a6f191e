"""Shell completion: suggestions for each word of a command line, and `storeconf completion`, which switches it on.

A failure while a shell asks gives no suggestions: nothing may be printed over the line that somebody is typing.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
)

from storeconf.cli.output import data

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from storeconf.layout import CheckResult, Layout

__all__ = [
    "completion_command",
    "complete_endpoints",
    "complete_environments",
    "complete_environments_or_files",
    "complete_files",
    "complete_overrides",
    "complete_paths_and_codes",
    "complete_stores",
]

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print a script that completes commands, files, environments, stores, paths and codes.

    Load it where the shell starts: `eval "$(storeconf completion bash)"` in ~/.bashrc, the same with zsh in ~/.zshrc
    after `compinit`, and `storeconf completion fish | source` in ~/.config/fish/config.fish.
    """
    kind = get_completion_class(shell)
    assert kind is not None  # every shell of the choice has one
    data(kind(context.find_root().command, {}, "storeconf", "_STORECONF_COMPLETE").source())


class _BashComplete(BashComplete):
    """Joins words that bash splits at colons and equals signs: ``production:sessions``, ``--set a.db=3``."""

    _kept = ""
    """The beginning of the word that bash keeps, since it only replaces the text behind the last sign."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is being typed, and that."""
        before, begun = super().get_completion_args()
        words: list[str] = []
        glued = False
        for word in (*before, begun):
            is_sign = word != "" and not word.strip(":=")
            if words and (is_sign or (glued and word)):
                self._kept = words[-1] + (word if is_sign else "")
                words[-1] += word
            else:
                self._kept = ""
                words.append(word)
            glued = is_sign
        return words[:-1], words[-1]

    def format_completion(self, item: CompletionItem) -> str:
        """The line that the script reads: without the beginning that bash keeps."""
        return f"{item.type},{str(item.value).removeprefix(self._kept)}"


class _ZshComplete(ZshComplete):
    """Writes no empty line: the script would skip it, and take each following line for another."""

    _option = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is being typed, and that."""
        before, begun = super().get_completion_args()
        self._option = _option_in(begun)
        return before, begun

    def format_completion(self, item: CompletionItem) -> str:
        """The three lines that the script reads; it looks for files itself, but behind an option it finds none."""
        if item.type == "file" and self._option:
            return "\n".join(f"plain\n{self._option}{each}\n_" for each in _files(str(item.value)))
        return super().format_completion(item if item.value else CompletionItem("_", type=item.type, help=item.help))


class _FishComplete(FishComplete):
    """Gives whole words where an option and its value are one: fish drops suggestions with another beginning."""

    _option = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is being typed, and that."""
        before, begun = super().get_completion_args()
        self._option = _option_in(begun)
        return before, begun

    def format_completion(self, item: CompletionItem) -> str:
        """The line that the script reads; of a file it reads the beginning, and finds none behind an option."""
        if item.type == "file" and self._option:
            return "\n".join(f"plain,{self._option}{each}" for each in _files(str(item.value)))
        plain = item.type == "plain" and not str(item.value).startswith("--")
        value = f"{self._option}{item.value}" if plain else item.value
        return super().format_completion(CompletionItem(value, type=item.type, help=item.help))


def _option_in(begun: str) -> str:
    """The option and its sign where a word is an option with its value."""
    option, sign, _ = begun.partition("=")
    return f"{option}{sign}" if sign and option.startswith("--") else ""


def _files(begun: str) -> list[str]:
    """The files, and directories with a slash, that a shell would offer for the beginning of a path."""
    directory, slash, _ = begun.rpartition("/")
    with contextlib.suppress(OSError), os.scandir(f"{directory}{slash}" or ".") as entries:
        found = sorted(f"{directory}{slash}{each.name}{'/' * each.is_dir()}" for each in entries)
        return [each for each in found if each.startswith(begun)]
    return []


add_completion_class(_BashComplete)
add_completion_class(_FishComplete)
add_completion_class(_ZshComplete)


# ---------------------------------------------------------------------- requests of a shell


def complete_files(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Files: the shell itself finds them."""
    return [CompletionItem(begun, type="file")]


def complete_environments(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The environments that the layout declares."""
    return _beginning(begun, _checked(ctx).environments)


def complete_environments_or_files(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Environments, and files, which have a dot or a slash."""
    # The other way around, bash would forget the environments.
    return [*complete_files(ctx, parameter, begun), *complete_environments(ctx, parameter, begun)]


def complete_stores(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The names of stores, in all environments that could be meant."""
    found = [layout.stores for layout in _layouts(ctx)]
    return _beginning(begun, *({name: _about(spec) for name, spec in each.items()} for each in found))


def complete_endpoints(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Stores, and stores of another environment: ``ENV:STORE``."""
    environment, colon, _ = begun.partition(":")
    if not colon:
        return complete_stores(ctx, parameter, begun)
    layout = _checked(ctx).layouts.get(environment)
    return [] if layout is None else _beginning(begun, [f"{environment}:{name}" for name in layout.stores])


def complete_paths_and_codes(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Paths of the layout, or the codes of diagnostics."""
    if begun[:2].upper() == "SC":
        from storeconf.diagnostics.codes import CODES

        return _beginning(begun.upper(), {code: about.title for code, about in CODES.items()})
    return _beginning(begun, *map(_paths, _layouts(ctx)))


def complete_overrides(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The paths that can be set, each with the sign that the value follows."""
    if "=" in begun:
        return []
    return _beginning(begun, *([f"{path}=" for path in _paths(layout)] for layout in _layouts(ctx)))


# ---------------------------------------------------------------------- inside


def _beginning(begun: str, *found: Iterable[str] | dict[str, str | None]) -> list[CompletionItem]:
    names: dict[str, str | None] = {}
    for each in found:
        names |= each if isinstance(each, dict) else dict.fromkeys(each)
    return [CompletionItem(name, help=about) for name, about in names.items() if name.startswith(begun)]


def _about(spec: Any) -> str | None:
    description = getattr(spec, "description", None)
    return None if description is None else " ".join(str(description).split())


def _paths(layout: Layout) -> Iterator[str]:
    from storeconf.cli.described import leaves
    from storeconf.config.tree import dotted

    yield from dict.fromkeys(
        dotted(path)
        for path in (*(each.path for each in layout.variables()), *(path for path, _ in leaves(layout.dump())))
    )


def _layouts(ctx: click.Context) -> Iterable[Layout]:
    """The layout of the environment that the line names, else those of all."""
    return _checked(ctx).layouts.values()


def _checked(ctx: click.Context) -> CheckResult:
    """The content of the layout, as far as it can be read; secrets are not needed for that."""
    from storeconf.layout import CheckResult, check_layout

    logging.getLogger("storeconf").setLevel(logging.CRITICAL + 1)
    name = ctx.params.get("file")
    named = ctx.params.get("env") or ()
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            return check_layout(
                name,
                environment=named[-1] if named and ctx.command.name != "validate" else None,
                overrides=ctx.params.get("overrides") or None,
                without_secrets=True,
                all_environments=True,
            )
        except Exception:  # noqa: BLE001  # a plugin's own code may fail in any way
            return CheckResult((), {})
