"""What all commands share: statuses, streams, terminals, interruptions, and what they do not import."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from storeconf import __version__
from storeconf.cli.app import SECTIONS, storeconf
from tests.cli.running import INTERRUPTIBLE, ROOT_COMMAND, Done, environment, on_terminal, process, run

LAYOUT = """
stores:
  main: {type: file, path: var, description: "größe — ├─"}
  cache: {parent: main}
  again: {use: cache}
environments:
  development: {}
  production: {stores: {main: {durability: fsync}}}
"""

ESCAPE = "\x1b["


@pytest.fixture(autouse=True)
def _layout(directory: Path) -> None:
    (directory / "storeconf.yaml").write_text(LAYOUT)


# ---------------------------------------------------------------------- usage


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Usage: storeconf"),
        (("nonsense",), "There are: init, validate"),
        (("tre",), "Did you mean 'tree'?"),
        (("tree", "--fromat", "json"), "--format"),
        (("tree", "--format", "xml"), "'text', 'json'"),
        (("tree", "extra"), "unexpected extra argument"),
        (("get", "main"), "Missing argument 'KEY'"),
        (("explain",), "Missing argument 'PATH|CODE'"),
        (("diff", "development"), "Missing argument 'ENV2|FILE2'"),
        (("diff", "development", "production", "--env", "production"), "--env is for two files"),
        (("show", "--set", "stores.main.path"), "not of the form PATH=VALUE"),
        (("show", "--set", "=x"), "not of the form PATH=VALUE"),
        (("set", "main", "k", "v", "--expires-in", "soon"), "is not a duration"),
        (("set", "main", "k", "v", "--expires-in", "-5s"), "can't be negative"),
        (("validate", "a.yaml", "-f", "b.yaml"), "not both"),
        (("init", "layout.json"), ".yaml, .yml or .toml"),
        (("init", "pyproject.toml"), "not pyproject.toml"),
    ],
)
def test_bad_usage_is_status_2_and_says_what_is_right(arguments: tuple[str, ...], says: str) -> None:
    done = run(*arguments)
    assert done.status == 2
    assert says in done.err
    assert done.out == ""


def test_help_lists_every_command_once() -> None:
    done = run("--help")
    assert done.status == 0
    names = [name for section in SECTIONS.values() for name in section]
    assert len(names) == len(set(names))
    for name in names:
        assert done.out.count(f"\n  {name} ") == 1
    assert run("-h").out == done.out


def test_each_command_has_help_that_begins_with_a_sentence() -> None:
    for names in SECTIONS.values():
        for name in names:
            done = run(name, "--help")
            assert done.status == 0
            assert done.out.startswith(f"Usage: storeconf {name}")
            command = storeconf.get_command(None, name)  # type: ignore[arg-type]  # no context is needed
            assert command is not None
            assert command.get_short_help_str(200).endswith(".")


def test_the_version_is_told() -> None:
    assert run("--version").out == f"storeconf, version {__version__}\n"


# ---------------------------------------------------------------------- problems


def test_a_missing_file_is_a_problem_with_its_place() -> None:
    done = run("tree", "-f", "nothing.yaml")
    assert done.status == 1
    assert done.out == ""
    assert "error[SC1" in done.err
    assert "nothing.yaml" in done.err


def test_an_unreadable_file_is_a_problem_with_its_place(directory: Path) -> None:
    (directory / "folder.yaml").mkdir()
    done = run("show", "-f", "folder.yaml")
    assert done.status == 1
    assert "folder.yaml" in done.err


def test_without_a_layout_one_is_told_how_to_write_one(directory: Path) -> None:
    (directory / "storeconf.yaml").unlink()
    done = run("tree")
    assert done.status == 1
    assert "storeconf init" in done.err


def test_an_unknown_environment_is_told_with_the_nearest() -> None:
    done = run("tree", "--env", "prod")
    assert done.status == 1
    assert "did you mean 'production'?" in done.err


def test_the_environment_of_the_process_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORECONF_ENV", "production")
    assert run("tree").out.startswith("production  storeconf.yaml\n")
    assert run("tree", "--env", "development").out.startswith("development  storeconf.yaml\n")


def test_a_warning_goes_to_stderr_and_is_no_failure() -> None:
    done = run("tree")
    assert done.status == 0
    assert done.err.count("SC803") == 1
    assert done.out.startswith("no environment  storeconf.yaml\n")


def test_a_warning_of_two_environments_comes_once(directory: Path) -> None:
    (directory / "storeconf.yaml").write_text(LAYOUT)
    done = run("diff", "development", "production", "--set", "stores.nothing.path=")
    assert done.status == 1
    assert done.err.count("error[") == 1
    assert done.err.startswith("development, production: ")


def test_an_unknown_store_is_told_with_the_nearest() -> None:
    for command in (
        ["get", "chache", "k"],
        ["set", "chache", "k", "v"],
        ["keys", "chache"],
        ["raw-key", "chache", "k"],
    ):
        done = run(*command, "--env", "production")
        assert done.status == 1
        assert done.err == "production: error: unknown store 'chache'; did you mean 'cache'?\n"
        assert done.out == ""


def test_a_store_that_fails_is_a_message(directory: Path) -> None:
    (directory / "var").write_text("a file, and no directory")
    done = run("get", "cache", "k", "--env", "production")
    assert done.status == 1
    assert done.err.startswith("production: error: ")
    assert "var" in done.err


# ---------------------------------------------------------------------- streams


def in_shell(script: str, cwd: Path, **variables: str) -> Done:
    command = " ".join(ROOT_COMMAND)
    done = subprocess.run(
        ["bash", "-c", f'storeconf() {{ {command} "$@"; }}; {script}'],
        cwd=cwd,
        env=environment(variables),
        capture_output=True,
        timeout=60,
        check=False,
    )
    return Done(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def test_a_reader_that_goes_away_is_no_reason_for_a_word(directory: Path) -> None:
    done = in_shell("storeconf env --env production | head -1; echo ${PIPESTATUS[0]}", directory)
    assert done.err == ""
    assert done.out.splitlines()[0].startswith("production")
    assert done.out.splitlines()[1] in ("0", "141")
    done = in_shell("storeconf schema | true; echo ${PIPESTATUS[0]}", directory)
    assert (done.out, done.err) == ("141\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_is_a_message(directory: Path) -> None:
    done = in_shell("storeconf tree --env production > /dev/full", directory)
    assert done.status == 1
    assert done.err == f"error: {os.strerror(errno.ENOSPC)}\n"


def test_closed_streams_are_no_failure(directory: Path) -> None:
    assert in_shell("storeconf tree --env production >&-", directory).status == 0
    assert in_shell("storeconf tree 2>&-", directory).status == 0
    assert in_shell("storeconf set main k v --env production; storeconf get main k >&-", directory).status == 0
    assert in_shell("storeconf set main k - <&-", directory).status == 2
    assert in_shell("storeconf clear main <&-", directory).status == 2


def test_an_encoding_without_our_characters_is_no_failure(directory: Path) -> None:
    done = in_shell("storeconf tree --env production; storeconf show", directory, PYTHONIOENCODING="latin-1")
    assert done.status == 0
    assert "`- cache" in done.out
    assert "e \\u2014 \\u251c" in done.out


def test_an_interruption_is_status_130_without_a_traceback(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        (directory / "silent.yaml").write_text(
            f"stores: {{main: {{type: redis, url: 'redis://127.0.0.1:{port}', namespace: a}}}}"
        )
        with subprocess.Popen(
            [sys.executable, "-c", INTERRUPTIBLE, "get", "main", "k", "-f", "silent.yaml"],
            cwd=directory,
            env=environment(),
            stderr=subprocess.PIPE,
        ) as child:
            with silent.accept()[0]:  # now it waits for an answer
                child.send_signal(signal.SIGINT)
                assert child.stderr is not None
                assert child.stderr.read() == b""
            assert child.wait(30) == 130


# ---------------------------------------------------------------------- terminals


def test_a_terminal_is_coloured_and_nothing_else_is(directory: Path) -> None:
    assert ESCAPE in on_terminal("tree", cwd=directory).out
    assert ESCAPE not in process("tree", cwd=directory).both
    assert ESCAPE not in on_terminal("tree", cwd=directory, NO_COLOR="1").out
    assert ESCAPE not in on_terminal("tree", cwd=directory, TERM="dumb").out
    assert ESCAPE in on_terminal("tree", cwd=directory, NO_COLOR="").out


def test_shadowed_values_are_struck_out_on_a_terminal(directory: Path) -> None:
    arguments = ("explain", "stores.main.path", "--env", "production", "--set", "stores.main.path=other")
    assert "\x1b[2m\x1b[9mvar" in on_terminal(*arguments, cwd=directory).out
    assert "file, shadowed" in process(*arguments, cwd=directory).out


def test_only_a_terminal_is_told_who_explains_a_code(directory: Path) -> None:
    (directory / "storeconf.yaml").write_text(
        "stores:\n  main: {type: memory, max_entires: 3}\n  cache: {parent: mian}\n"
    )
    shown = on_terminal("validate", cwd=directory, NO_COLOR="1").out.splitlines()
    assert shown[-2:] == ["storeconf.yaml: 2 errors", "run `storeconf explain SC501` for help"]
    assert "storeconf explain" not in process("validate", cwd=directory).both
    (directory / "storeconf.yaml").write_text("stores: {}\n")
    assert on_terminal("validate", cwd=directory, NO_COLOR="1").out == "storeconf.yaml: no problems\n"


def test_a_tree_is_broken_where_the_terminal_ends(directory: Path) -> None:
    (directory / "storeconf.yaml").write_text(
        "stores:\n  main: {type: file, path: var/with/a/rather/long/path/to/the/entries, durability: fsync, "
        'mode: "0750", middleware: {ttl: {default: 14d, max: 30d, jitter: 0.2}, limit: {value_size: 1MiB}}}\n'
    )
    shown = on_terminal("tree", cwd=directory, width=70, NO_COLOR="1").out
    assert max(map(len, shown.splitlines())) <= 70
    assert len(shown.splitlines()) > 4
    assert len(process("tree", cwd=directory).out.splitlines()) == 3


def test_clear_asks_on_a_terminal() -> None:
    here = Path.cwd()

    def clear(answer: bytes) -> Done:
        return on_terminal("clear", "main", "--env", "production", cwd=here, prompt="[y/N]", answer=answer)

    def there() -> bool:
        return run("get", "cache", "k", "--env", "production").status == 0

    run("set", "cache", "k", "v", "--env", "production")
    refused = clear(b"n\n")
    assert refused.status == 1
    assert "production: remove everything in 'main', and with it cache, again? [y/N]" in refused.out
    assert "nothing was removed" in refused.out
    assert clear(b"\x04").status == 1  # the end of input
    assert clear(b"\x03").status == 130  # an interruption
    assert there()
    assert clear(b"y\n").status == 0
    assert not there()


def test_binary_values_do_not_reach_a_terminal(directory: Path) -> None:
    process("set", "main", "k", "-", "--env", "production", cwd=directory, stdin=b"\x1b]0;owned\x07\xff")
    done = on_terminal("get", "main", "k", "--env", "production", cwd=directory)
    assert done.status == 0
    assert "\x1b]0" not in done.out
    assert "a pipe gets the bytes" in done.out
    process("set", "main", "k", "plain\ttext\nof two lines", "--env", "production", cwd=directory)
    assert on_terminal("get", "main", "k", "--env", "production", cwd=directory).out == "plain\ttext\nof two lines\n"


def test_no_text_of_a_layout_or_store_moves_the_cursor(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storeconf.cli.output.wants_color", lambda stream: True)
    (directory / "storeconf.yaml").write_text(
        'stores: {main: {type: file, path: "v\\x1b[2Jar", description: "a\\x1b[2Jb\\nc\\u202e"}}\n'
        'environments: {one: {stores: {main: {description: "\\x1b[2J"}}}, two: {}}\n'
    )
    run("set", "main", "key\x1b[2J", "v")
    for arguments in (
        *(("show", "--format", form) for form in ("yaml", "toml", "json")),
        *(("show", "--origins", "--format", form) for form in ("yaml", "toml", "json")),
        *(("tree", "--format", form) for form in ("text", "json")),
        *(("graph", "--format", form) for form in ("mermaid", "dot", "html")),
        *(("env", "--format", form) for form in ("text", "json")),
        *(("keys", "main", "--format", form) for form in ("text", "json")),
        ("diff", "one", "two"),
        ("explain", "stores.main"),
        ("explain", "stores.no\x1b[2J"),
        ("get", "main", "nothing\x1b[2J"),
        ("get", "no\x1b[2J", "k"),
        ("tree", "-f", "no\x1b[2J"),
        ("tree", "--env", "no\x1b[2J"),
        ("tree", "--set", "stores.no\x1b[2J=x"),
    ):
        done = run(*arguments)
        assert "\x1b[2J" not in done.both, arguments
        assert "\u202e" not in done.both, arguments


# ---------------------------------------------------------------------- the cost of importing

HEAVY = {"redis", "valkey", "hiredis", "litestar", "rich", "importlib_metadata", "cryptography", "opentelemetry"}


def loaded_after(arguments: list[str], cwd: Path) -> set[str]:
    script = (
        "import sys, runpy\n"
        f"sys.argv = ['storeconf', *{arguments!r}]\n"
        "try:\n    runpy.run_module('storeconf', run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=cwd, env=environment(), capture_output=True, check=True)
    return set(done.stderr.decode().split())


def test_checking_and_showing_import_no_client_and_scan_for_no_plugin(directory: Path) -> None:
    (directory / "storeconf.yaml").write_text(
        "stores: {a: {type: redis, url: 'redis://h', namespace: n}, b: {parent: a},\n"
        "  c: {type: valkey, url: 'valkey://h', namespace: n}}\n"
    )
    for arguments in (["validate"], ["show", "--origins"], ["tree"], ["graph"], ["explain", "stores.a.url"]):
        loaded = loaded_after(arguments, directory)
        assert "storeconf.layout" in loaded
        assert not loaded & HEAVY, arguments


def test_the_version_imports_next_to_nothing(directory: Path) -> None:
    assert not loaded_after(["--version"], directory) & (HEAVY | {"pydantic", "yaml", "asyncio"})


# ---------------------------------------------------------------------- completion


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["copy", "production", ":", "ma"], ["main"]),
        (["copy", "production", ":"], ["main"]),
        (["ping", "--set", "stores.main.mode", "=", "0700", "ma"], ["main"]),
        (["tree", "--env", "=", "prod"], ["production"]),
        (["diff", "prod"], ["production"]),
        (["diff", ""], ["development", "production"]),
    ],
)
def test_bash_completes_words_that_it_takes_apart(directory: Path, words: list[str], expected: list[str]) -> None:
    (directory / "storeconf.yaml").write_text(
        "stores: {main: {type: file, path: x}}\nenvironments: {development: {}, production: {}}\n"
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = """
        eval "$(storeconf completion bash)"
        compopt() { :; }  # outside of a completion there is nothing to set
        COMP_WORDS=(storeconf "$@"); COMP_CWORD=$#
        _storeconf_completion storeconf
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-c", script, "bash", *words],
        cwd=directory, env=environment({"PATH": path}), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout.split(), done.stderr) == (expected, "")


def test_zsh_gets_no_empty_line(directory: Path) -> None:
    """Its script drops them, and then takes a type for a value."""
    (directory / "storeconf.yaml").write_text("environments: {development: {}}\n")
    asked = {"_STORECONF_COMPLETE": "zsh_complete", "COMP_WORDS": "storeconf diff ", "COMP_CWORD": "2"}
    done = process(cwd=directory, environ=asked)
    assert done.out.splitlines() == ["file", "_", "_", "plain", "development", "_"]
