"""Shell completion: what can stand at a place of a command line, and `storeconf completion`, which switches it on.

Whatever fails while a shell asks gives no suggestions: nothing may be printed over the line that somebody is typing.
"""

from __future__ import annotations

import contextlib
import io
import logging
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem, get_completion_class

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


# ---------------------------------------------------------------------- what a shell asks


def complete_files(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Files: the shell itself finds them."""
    return [CompletionItem(begun, type="file")]


def complete_environments(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The environments that the layout declares."""
    return _beginning(begun, _checked(ctx).environments)


def complete_environments_or_files(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Environments, and files, which have a dot or a slash."""
    return [*complete_environments(ctx, parameter, begun), *complete_files(ctx, parameter, begun)]


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
    """What the layout holds, as far as it can be read; secrets are not needed for that."""
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
