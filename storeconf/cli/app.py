"""The command group, and what its commands share: naming the file, the environment and overrides, and failing well."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import click

from storeconf._version import __version__
from storeconf.cli.output import message, style
from storeconf.errors import StoreconfError

if TYPE_CHECKING:
    from collections.abc import Callable

    from storeconf.layout import Layout

__all__ = ["Source", "layout_command", "storeconf"]

F = TypeVar("F", bound="Callable[..., Any]")


@dataclass(frozen=True)
class Source:
    """What the options of one call say: which file, which environment, what to override."""

    file: str | None
    environment: str | None
    overrides: dict[str, str]

    def layout(self) -> Layout:
        """Read the layout; its problems go to stderr, and errors end the command."""
        return self.layout_for(self.environment)

    def layout_for(self, environment: str | None) -> Layout:
        """Read the layout of one environment."""
        from storeconf.cli.report import complain
        from storeconf.layout import examine

        report = examine(self.file, environment=environment, overrides=self.overrides)
        complain(report.diagnostics)
        if report.layout is None:
            raise SystemExit(1)
        return report.layout


class Commands(click.Group):
    """A group whose commands live in modules that are imported only when one of theirs is called."""

    _homes: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("validate", "show", "explain", "diff", "env", "init"), "storeconf.cli.configuration"),
        **dict.fromkeys(("tree", "graph", "schema", "plugins"), "storeconf.cli.structure"),
        **dict.fromkeys(
            ("ping", "keys", "get", "set", "delete", "clear", "purge", "stats", "key"), "storeconf.cli.contents"
        ),
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which one needs them."""
        return list(self._homes)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module that holds the command."""
        home = self._homes.get(cmd_name)
        if home is None:
            return None
        from importlib import import_module

        command: click.Command = getattr(import_module(home), f"{cmd_name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest command for a misspelt one."""
        if args and args[0] not in self._homes and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], self._homes, n=1)
            if near:
                ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="storeconf")
def storeconf() -> None:
    """See an application's key/value stores before they are deployed, and look after what they hold.

    The layout is read from -f FILE, else from STORECONF_FILE, else from storeconf.yaml, .yml, .toml or .json, or
    pyproject.toml, in the working directory.
    """


def _override(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    overrides = {}
    for value in values:
        path, equals, text = value.partition("=")
        if not equals or not path:
            raise click.BadParameter(f"{value!r} is not of the form PATH=VALUE", ctx=ctx, param=parameter)
        overrides[path] = text
    return overrides


def layout_command(command: F) -> F:
    """Add the options that every command on a layout has, hand them over as ``source``, and fail readably."""

    @functools.wraps(command)
    def run(*args: Any, file: str | None, env: str | None, overrides: dict[str, str], **options: Any) -> Any:
        try:
            return command(*args, source=Source(file, env, overrides), **options)
        except StoreconfError as error:
            message(f"{style('error', fg='red', bold=True)}: {error}")
            raise SystemExit(1) from None

    options = (
        click.option("-f", "--file", metavar="FILE", help="The layout; without it, found as `storeconf -h` tells."),
        click.option("--env", metavar="NAME", help="The environment; without it, STORECONF_ENV, else none."),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="PATH=VALUE",
            callback=_override,
            help="Override one value, as --set stores.main.db=3. Can be repeated.",
        ),
    )
    for option in reversed(options):
        run = option(run)
    return run  # type: ignore[return-value]  # functools.wraps keeps the behaviour, not the type


def format_option(*names: str) -> Callable[[F], F]:
    """Add ``--format`` with these choices; the first is the default."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(names),
        default=names[0],
        show_default=True,
        help="How to print the result.",
    )
