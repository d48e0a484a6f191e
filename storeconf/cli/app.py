"""The command group, and the common parts of its commands: options for the layout, its stores, errors as messages.

Stores are found by name, closed after the work, and fail readably.
"""

from __future__ import annotations

import errno
import functools
import json
import logging
import os
import re
import sys
import tomllib
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

import click

from storeconf import __version__
from storeconf._text import nearest
from storeconf.cli.completion import complete_environments, complete_files, complete_overrides
from storeconf.cli.output import be_quiet, complain, error, failing, hide, printing_nothing_else, warning
from storeconf.config import Stream
from storeconf.config.document import MAX_BYTES
from storeconf.errors import ConfigError, StoreconfError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

    from storeconf.config.language import Format
    from storeconf.layout import CheckResult, Layout
    from storeconf.registry import StoreRegistry
    from storeconf.store import Store

__all__ = [
    "Source",
    "format_option",
    "on_layout",
    "on_no_layout",
    "opened",
    "readable",
    "run",
    "store_of",
    "storeconf",
    "warn_of",
    "with_store",
]

T = TypeVar("T")

_STDIN: Final = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
_TABLE: Final = re.compile(rb"^\[\[?[\w.\"'-]+\]\]?\s*(?:#.*)?$", re.MULTILINE)


def opened(name: str | None) -> str | Stream | None:
    """The name of a file as it is, or the text of a pipe, which can be read only once and so belongs to this call."""
    is_stdin = name in _STDIN
    if name is None or not (is_stdin or _is_pipe(name)):
        return name
    if is_stdin and sys.stdin is None:
        raise click.UsageError("stdin is closed")
    shown = "<stdin>" if is_stdin else name
    read: dict[str, Stream] = click.get_current_context().find_root().meta.setdefault("storeconf.streams", {})
    if shown not in read:
        with nullcontext(sys.stdin.buffer) if is_stdin else Path(name).open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        read[shown] = Stream(data, _format_of(data), shown)
    return read[shown]


def _is_pipe(name: str) -> bool:
    try:
        return Path(name).is_fifo()
    except (OSError, ValueError):
        return False


def _format_of(data: bytes) -> Format:
    """The format of the text, which has no name to tell it. A text that no format allows is most likely YAML."""
    try:
        text = data.decode()
    except ValueError:
        return "yaml"
    if text.lstrip().startswith('{"'):
        return "json"
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        pass
    else:
        return "json"
    try:
        found = tomllib.loads(text)
    except (ValueError, RecursionError):
        return "toml" if _TABLE.search(data) else "yaml"
    return "toml" if found else "yaml"


# ---------------------------------------------------------------- the application


F = TypeVar("F", bound="Callable[..., Any]")

_ATTEMPTS = "storeconf.stores"
"""The logger of each attempt to connect; their outcome is in the result or in an error."""

INTERRUPTED = 130
PIPE_CLOSED = 141
"""The status of a command whose reader closed the pipe, as if the signal had ended it."""


@dataclass(frozen=True)
class Source:
    """The options of one call: the file, the environments and the overrides.

    Only commands that take several environments are given more than one.
    """

    file: str | None
    environments: tuple[str, ...]
    overrides: tuple[tuple[str, str], ...]
    without_secrets: bool = False

    @property
    def environment(self) -> str | None:
        """The environment, None where none was named."""
        return self.environments[0] if self.environments else None

    def check(self, file: str | None, environment: str | None, *, thoroughly: bool = False) -> CheckResult:
        """Check a layout with these options; ``thoroughly``: in every environment, and with the packages it needs."""
        from storeconf.layout import check_layout

        return check_layout(
            opened(file),
            environment=environment,
            overrides=self.overrides,
            without_secrets=self.without_secrets,
            all_environments=thoroughly,
            packages=thoroughly,
        )

    def layout(self) -> Layout:
        """Read the layout; its problems go to stderr, and errors end the command."""
        return self.layouts(self.environment)[0]

    def layouts(self, *environments: str | None) -> list[Layout]:
        """Read the layouts of several environments; a problem that they share is shown once."""
        return self.read(*((self.file, name) for name in environments))

    def read(self, *wanted: tuple[str | None, str | None]) -> list[Layout]:
        """Read the layouts of several files and environments, as `layouts` does."""
        from storeconf.config.reporter import merged

        reports = [self.check(file, name) for file, name in wanted]
        complain(merged(each for report in reports for each in report.diagnostics))
        layouts = [report.layout for report in reports if report.layout is not None]
        if len(layouts) < len(reports):
            raise SystemExit(1)
        for layout in layouts:
            hide(layout.redact)
        return layouts


SECTIONS: dict[str, tuple[str, ...]] = {
    "Inspect the layout": ("init", "validate", "show", "explain", "diff", "changes", "env"),
    "Inspect its structure": ("tree", "graph"),
    "Manage stores": ("ping", "keys", "get", "set", "delete", "clear", "prune", "stats", "raw-key"),
    "Move data": ("copy", "move", "dump", "restore"),
    "Inspect storeconf": ("schema", "plugins", "completion"),
    "Extend storeconf": ("new-plugin",),
}
"""The commands, in the order in which one needs them."""


class Commands(click.Group):
    """A group whose commands live in modules that are imported only when one of theirs is called."""

    _homes: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("init", "schema", "plugins", "new-plugin"), "authoring"),
        "completion": "completion",
        **dict.fromkeys(("validate", "show", "diff", "env"), "layout"),
        **dict.fromkeys(("explain", "tree"), "explain"),
        **{name: name for name in ("changes", "graph")},
        **dict.fromkeys(("ping", "keys", "get", "set", "delete", "clear", "prune", "stats", "raw-key"), "data"),
        **dict.fromkeys(("copy", "move", "dump", "restore"), "move"),
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which one needs them."""
        return [name for names in SECTIONS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module that holds the command."""
        home = self._homes.get(cmd_name)
        if home is None:
            return None
        from importlib import import_module

        name = f"{cmd_name.replace('-', '_')}_command"
        command: click.Command = getattr(import_module(f"storeconf.cli.{home}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by purpose."""
        width = max(map(len, self._homes))
        for title, names in SECTIONS.items():
            with formatter.section(title):
                commands = [(name, self.get_command(ctx, name)) for name in names]
                formatter.write_dl(
                    [(name.ljust(width), command.get_short_help_str(100)) for name, command in commands if command]
                )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest command for a misspelt one."""
        if args and args[0] not in self._homes and not args[0].startswith("-"):
            near = nearest(args[0], self._homes)
            known = f"Did you mean {near!r}?" if near else f"There are: {', '.join(self.list_commands(ctx))}."
            ctx.fail(f"No such command {args[0]!r}. {known}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; errors that its user can fix become a message and a status, never a traceback."""
        logger, handler = logging.getLogger("storeconf"), _Messages(logging.WARNING)
        logger.addHandler(handler)
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):
            raise SystemExit(INTERRUPTED) from None
        except ConfigError as failure:
            complain(failure.diagnostics)
        except StoreconfError as failure:
            error(str(failure))
        except OSError as failure:
            if failure.errno == errno.EPIPE:
                _drop_output()
                raise SystemExit(PIPE_CLOSED) from None
            about = f"{failure.filename}: " if failure.filename else ""
            error(f"{about}{failure.strerror or failure}")
        finally:
            logger.removeHandler(handler)
        raise SystemExit(1)


class _Messages(logging.Handler):
    """Turns log records of storeconf into messages."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != _ATTEMPTS:
            (error if record.levelno >= logging.ERROR else warning)(record.getMessage())


def _drop_output() -> None:
    """Redirect buffered output to nowhere, because closing the stream would fail."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="storeconf")
def storeconf() -> None:
    """Inspect an application's key/value stores before they are deployed, and manage their data.

    The layout is read from -f FILE (- is stdin), else from STORECONF_FILE, else from storeconf.yaml, .yml, .toml or
    .json, or pyproject.toml with [tool.storeconf], in the working directory, else from variables alone.

    Data goes to stdout, messages go to stderr. Exit status: 0 success, 1 problems found, 2 bad usage.
    """


def _override(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    overrides = []
    for value in values:
        path, equals, text = value.partition("=")
        if not equals or not path:
            shown = f"{path!r}" if not equals else "it"  # the text after the sign may be a secret
            raise click.BadParameter(f"{shown} is not of the form PATH=VALUE", ctx=ctx, param=parameter)
        overrides.append((path, text))
    return tuple(overrides)


def _single(ctx: click.Context, parameter: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) > 1:
        raise click.BadParameter("give one environment", ctx=ctx, param=parameter)
    return names


def _quiet(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        be_quiet()


def on_layout(*, several: bool = False, secrets: bool = True) -> Callable[[F], F]:
    """Add the options that choose the layout of a command, which gets them as ``source``.

    A command may take ``several`` environments. One that needs no ``secrets`` also takes ``--without-secrets``.
    """

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def run(
            *args: Any,
            file: str | None,
            overrides: tuple[tuple[str, str], ...],
            env: tuple[str, ...],
            without_secrets: bool = False,
            **options: Any,
        ) -> Any:
            with printing_nothing_else():
                return command(*args, source=Source(file, env, overrides, without_secrets), **options)

        about = "An environment; can be repeated." if several else "The environment; else STORECONF_ENV, else none."
        without = click.option(
            "--without-secrets",
            is_flag=True,
            help="Unset names and missing secret files count as placeholders, so that CI needs no production secrets.",
        )
        options = (
            *(() if secrets else (without,)),
            click.option(
                "-f",
                "--file",
                metavar="FILE",
                shell_complete=complete_files,
                help="The layout, or - for stdin; `storeconf -h` explains the default.",
            ),
            click.option(
                "--env",
                multiple=True,
                metavar="NAME",
                callback=None if several else _single,
                shell_complete=complete_environments,
                help=about,
            ),
            click.option(
                "--set",
                "overrides",
                multiple=True,
                metavar="PATH=VALUE",
                callback=_override,
                shell_complete=complete_overrides,
                help="Override one value, as --set stores.main.db=3. Can be repeated.",
            ),
            click.option("-q", "--quiet", is_flag=True, expose_value=False, callback=_quiet, help="Print errors only."),
        )
        for option in reversed(options):
            run = option(run)
        return run  # type: ignore[return-value]  # the same for callers of the command

    return decorate


def on_no_layout(command: F) -> F:
    """Let a command without a layout accept the options that the others share, and ignore them."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> Any:
        with printing_nothing_else():
            return command(*args, **options)

    for name, *more in (("-f", "--file"), ("--env",), ("--set",)):
        run = click.option(name, *more, multiple=True, hidden=True, expose_value=False)(run)
    return click.option("-q", "--quiet", is_flag=True, hidden=True, expose_value=False)(run)  # type: ignore[return-value]


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


# ---------------------------------------------------------------- the stores of a layout


def with_store(layout: Layout, name: str, work: Callable[[Store], Awaitable[T]]) -> T:
    """Do the work with one store."""
    registry, store = store_of(layout, name)
    return run(layout, registry, lambda: work(store))


def run(layout: Layout, registry: StoreRegistry, work: Callable[[], Awaitable[T]]) -> T:
    """Do the work, then close the registry.

    Stores open at their first use, so a broken store does not affect the others.
    """

    async def closing() -> T:
        try:
            return await work()
        finally:
            await registry.aclose()

    import asyncio

    with readable(layout):
        return asyncio.run(closing())


def store_of(layout: Layout, name: str) -> tuple[StoreRegistry, Store]:
    """The layout's registry, and its store of that name; nothing is opened."""
    with readable(layout):
        registry = layout.compile()
        store = registry.require(name)
    warn_of(layout, name, registry, store)
    return registry, store


def warn_of(layout: Layout, name: str, registry: StoreRegistry, store: Store) -> None:
    """Warn of probable mistakes: a name that is not listed, and a store that exists in this process alone."""
    if name not in registry:
        from storeconf.build import nearest as nearest_name

        suggestion = nearest_name(name, registry)
        warning(f"{name!r} is not listed; the default factory makes it; {suggestion}", layout.environment)
    capabilities = store.root.capabilities
    if not capabilities.persistent and not capabilities.shared:
        warning(f"{name!r} is an in-memory store; this process starts with an empty one", layout.environment)


def readable(layout: Layout) -> AbstractContextManager[None]:
    """Turn errors of stores into messages and the status 1."""
    return failing(layout.environment)
