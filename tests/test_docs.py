"""The README and every page of docs/ are true: their code runs, their consoles print what they show.

How a page is read, from top to bottom, in an empty directory of its own:

- a block with a title (```` ```yaml title="storeconf.yaml" ````) is written to that file;
- a ``python`` block without a title is run; an ``async`` body is not wrapped: blocks are whole programs;
- in a ``console`` block each line that begins with ``$ `` is run by a shell, and what follows it is the output that it
  must print, where ``…`` stands for anything. ``# exits with N`` at the end of a command is the status it must have;
- a page that mentions ``${REDIS_URL}`` or ``${VALKEY_URL}`` gets servers, whose URLs these variables contain;
- ``<!-- not run: why -->`` on the line before a block keeps it from being run;
- in the README, the tutorial and the how-tos, only packages that the page tells to install can be imported, so that it
  works in a fresh environment as written.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, entry_points, packages_distributions
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.servers import shared

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Their examples are meant to fail; tests/test_generated_docs.py runs them and compares what they print.
GENERATED = ROOT / "docs" / "reference" / "diagnostics"
FOLLOWED = [page for page in PAGES if page.parent.name == "how-to" or page.name in ("README.md", "tutorial.md")]

BLOCK = re.compile(
    r"(?P<skip><!-- not run: [^\n]+ -->\n+)?^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
TITLE = re.compile(r'title="([^"]+)"')
EXITS = re.compile(r"\s+# exits with (\d+)$")


@dataclass(frozen=True)
class Block:
    language: str
    title: str | None
    body: str
    line: int
    skipped: bool


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for match in BLOCK.finditer(text):
        indent = match["indent"]
        body = "".join(line.removeprefix(indent) for line in match["body"].splitlines(keepends=True))
        title = TITLE.search(match["info"])
        language = match["info"].split()[0] if match["info"].split() else ""
        line = text.count("\n", 0, match.start("body"))
        found.append(Block(language, title[1] if title else None, body, line + 1, match["skip"] is not None))
    return found


def servers(page: str) -> dict[str, str]:
    """The variables with the URLs of those servers that a page mentions."""
    kinds = {"REDIS_URL": ("redis", "redis-8.2"), "VALKEY_URL": ("valkey", "valkey-9.1")}
    return {
        name: f"{scheme}://{shared(kind).address}/0" for name, (scheme, kind) in kinds.items() if f"${{{name}}}" in page
    }


# ---------------------------------------------------------------------- a fresh environment

INSTALLS = re.compile(r"pip install ([^`\n#]+)")
EXTRAS = re.compile(r"storeconf\[[\w,-]+\]")

BLOCKER = """
import sys

class Blocker:
    hidden = frozenset({hidden})

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.hidden:
            raise ModuleNotFoundError(f"No module named {{name!r}}: the page does not tell to install it", name=name)

sys.meta_path.insert(0, Blocker())
"""


def named(text: str) -> set[str]:
    """The requirements that a page tells to install; storeconf is always one."""
    found = {"storeconf", "pip", "setuptools", *EXTRAS.findall(text)}
    for line in INSTALLS.findall(text):
        found.update(word for word in re.split(r"[\s\"']+", line.strip()) if re.fullmatch(r"[a-z][\w.\[\],-]+", word))
    return found


def installed(requirements: set[str]) -> set[str]:
    """The distributions that come with them, by canonical names."""
    found: set[str] = set()
    waiting = [(Requirement(each), "") for each in requirements]
    seen = set()
    while waiting:
        each, of = waiting.pop()
        if each.marker is not None and not each.marker.evaluate({"extra": of}):
            continue
        for extra in ("", *each.extras):
            if (each.name, extra) in seen:
                continue
            seen.add((each.name, extra))
            try:
                needed = distribution(each.name).requires or []
            except PackageNotFoundError:
                break
            found.add(canonicalize_name(each.name))
            waiting += [(Requirement(text), extra) for text in needed]
    for name, group in (("pytest", "pytest11"), ("hypothesis", "hypothesis")):  # which import all plugins that are here
        plugins: set[str] = {
            canonicalize_name(each.dist.name) for each in entry_points(group=group) if each.dist is not None
        }
        found |= installed(plugins - found) if name in found and not plugins <= found else set()
    return found


def fresh(page: Path, directory: Path) -> Path:
    """A folder for PYTHONPATH that hides all packages but those that the page tells to install."""
    known = installed(named(page.read_text()))
    hidden = {
        module
        for module, names in packages_distributions().items()
        if module.isidentifier() and known.isdisjoint(map(canonicalize_name, names))
    }
    (directory / "sitecustomize.py").write_text(BLOCKER.format(hidden=sorted(hidden)))
    return directory


def shell(
    command: str, directory: Path, variables: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    names = {name: value for name, value in os.environ.items() if not name.startswith(("STORECONF", "PYTEST"))}
    names |= variables
    path = f"{Path(sys.executable).parent}{os.pathsep}{names['PATH']}"
    return subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        env={**names, "PATH": path, "NO_COLOR": "1", "PYTHONWARNINGS": "error"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
        check=False,
    )


def matches(expected: str, printed: str) -> bool:
    pattern = re.escape(expected.rstrip()).replace("…", ".*")
    return re.fullmatch(pattern, printed.rstrip(), re.DOTALL) is not None


def session(block: Block, directory: Path, where: str, variables: Mapping[str, str]) -> None:
    commands: list[tuple[str, list[str]]] = []
    for line in block.body.splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], []))
        elif commands and line.startswith("> ") and not commands[-1][1]:
            commands[-1] = (f"{commands[-1][0]}\n{line[2:]}", [])
        elif commands:
            commands[-1][1].append(line)
    for command, expected in commands:
        status = EXITS.search(command)
        done = shell(EXITS.sub("", command), directory, variables)
        assert done.returncode == (int(status[1]) if status else 0), f"{where}: $ {command}\n{done.stdout}"
        if any(line.strip() for line in expected):
            shown = "\n".join(expected)
            assert matches(shown, done.stdout), f"{where}: $ {command}\nprinted:\n{done.stdout}\nshown:\n{shown}"


@pytest.mark.timeout(300)  # a page may run a whole suite, on a machine that has other work
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.parent != GENERATED], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_block_of_the_page_is_true(page: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    variables = servers(page.read_text())
    if page in FOLLOWED:
        variables["PYTHONPATH"] = str(fresh(page, tmp_path_factory.mktemp("modules")))
    for block in blocks(page):
        where = f"{page.relative_to(ROOT)}:{block.line}"
        if block.title is not None:
            target = tmp_path / block.title
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.body)
        if block.skipped:
            continue
        if block.language == "python" and block.title is None:
            program = tmp_path / "block.py"
            program.write_text(block.body)
            done = shell(f"{sys.executable} block.py", tmp_path, variables)
            assert done.returncode == 0, f"{where}\n{done.stdout}"
        elif block.language == "console":
            session(block, tmp_path, where, variables)


def test_the_recipes_for_pipelines_run_what_their_page_runs() -> None:
    """Each call of storeconf in a workflow is one that the page's consoles, or its layouts, prove to work."""
    page = ROOT / "docs/how-to/validate-in-ci.md"
    files = {block.title: block.body for block in blocks(page) if block.title is not None}
    workflow = yaml.safe_load(files[".github/workflows/layout.yml"])
    steps = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    steps += yaml.safe_load(files[".gitlab-ci.yml"])["layout"]["script"]
    steps += [
        hook["entry"] for repo in yaml.safe_load(files[".pre-commit-config.yaml"])["repos"] for hook in repo["hooks"]
    ]
    commands = [step for step in steps if step.startswith("storeconf")]
    assert len(commands) == 4
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "storeconf.yaml").write_text(files["storeconf.yaml"])
        for command in commands:
            assert shell(command, Path(place)).returncode == 0, command


def test_the_table_of_lines_counts_the_programs_below_it() -> None:
    counted: Counter[tuple[str, str]] = Counter()
    page = (ROOT / "docs/explanation/lines.md").read_text()
    library, job = "", None
    for line in map(str.strip, page.splitlines()):
        if line.startswith("## "):
            library = line.removeprefix("## ")
        elif line.startswith("# job: "):
            job = line.removeprefix("# job: ")
        elif line == "# end":
            job = None
        elif job is not None and line and not line.startswith("#"):
            counted[library, job] += 1
    rows = re.findall(r"^\| [^|]+ \(`(\w+)`\) \| (\d+) \| ([\w-]+) \| (\d+) \|", page, re.MULTILINE)
    shown = {("storeconf", job): int(ours) for job, ours, _, _ in rows}
    assert shown | {(peer, job): int(theirs) for job, _, peer, theirs in rows} == counted


def test_pages_link_only_to_what_exists() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}, which does not exist"


def test_the_navigation_of_the_site_leads_to_every_page() -> None:
    named = re.findall(r"^ *- (?:[^:\n]+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(str(page.relative_to(ROOT / "docs")) for page in PAGES[1:])


IMPORT = re.compile(r"^ *from (storeconf(?:\.[\w.]+)?) import (\([^)]*\)|[^\n]+)", re.MULTILINE)
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLES], ids=lambda page: str(page.relative_to(ROOT)))
def test_a_name_that_a_page_or_an_example_imports_is_public(page: Path) -> None:
    """Strict type checkers object to a name that is not in the ``__all__`` of its module."""
    for module, names in IMPORT.findall(page.read_text()):
        if importlib.util.find_spec(module) is not None:
            public = importlib.import_module(module).__all__
            for name in re.sub(r"#.*", "", names).strip("()").split(","):
                imported = name.split(" as ")[0].strip()
                assert not imported or imported in public, f"{module}.{imported}"
