"""The pages are correct: their code runs, it prints the output below it, and the site is built without a warning.

A block of Python or sh with a text block right below it is run, and prints that text; such an sh block holds `icrl`
commands only. On a page with the line MARK all Python is run, but for blocks whose title begins with "needs". Each runs
by itself, offline and in an empty folder. Seconds differ from run to run and are not compared. The text is written, not
typed, by

    python -m tests.test_docs --write

Of all other Python, also in the README, the syntax and the imports are checked; of all other `icrl` commands, the
options and the arms.
"""

from __future__ import annotations

import ast
import importlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stdout
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import pytest
import typer
from typer.testing import CliRunner

import icrl_graph
from icrl_graph.benchmarks.arms import read_arms
from icrl_graph.cli.shared import app
from icrl_graph.prompts.ablations import ABLATIONS
from icrl_graph.prompts.layouts import LAYOUTS
from icrl_graph.prompts.memory import MEMORIES
from icrl_graph.prompts.plan import SCHEDULES
from icrl_graph.topologies.methods import build

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
MARK = "<!-- tests/test_docs.py runs this page -->"
ENVIRONMENT = {"COLUMNS": "96", "OPENAI_API_KEY": "none"}  # a preview builds the model's client, and makes no call

_BLOCK = re.compile(
    r"^```(?P<kind>python|sh|bash)(?P<info>[^\n]*)\n(?P<code>.*?)^```$(?:\s*?^```text\n(?P<output>.*?)^```$)?",
    re.M | re.S,
)
_SECONDS = re.compile(r"\d+\.\d+ s\b")


class Block(NamedTuple):
    """A block of code on a page."""

    page: Path
    line: int
    kind: str
    code: str
    output: str | None
    is_run: bool
    needs_extra: bool
    end: int
    """Where the code ends on the page, and where its output does."""
    whole: int


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        kind, output = match["kind"], match["output"]
        is_marked = kind == "python" and MARK in text and 'title="needs' not in match["info"]
        line, end = text.count("\n", 0, match.start("code")), match.end("code") + len("```")
        needs_extra = "needs the extra" in match["info"]
        is_run = is_marked or output is not None
        yield Block(page, line, kind, match["code"], output, is_run, needs_extra, end, match.end())


SOURCES = [*PAGES, ROOT / "README.md"]
BLOCKS = [block for page in SOURCES for block in _blocks(page)]
RUN = [block for block in BLOCKS if block.is_run]
READ = [block for block in BLOCKS if block.kind == "python" and not block.is_run]


def _id(block: Block) -> str:
    return f"{block.page.stem}-{block.line}"


def _printed(block: Block) -> str:
    """What a block prints, run in an empty folder."""
    stdout = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        if block.kind == "python":
            program = compile("\n" * block.line + block.code, block.page, "exec", dont_inherit=True)
            with redirect_stdout(stdout):
                exec(program, {"__name__": "__main__"})
        else:
            for command in _commands(block.code, alone=True):
                done = CliRunner().invoke(app, command, env=ENVIRONMENT, catch_exceptions=False)
                assert done.exit_code == 0, done.output
                stdout.write(done.stdout)
    lines = [line.rstrip() for line in stdout.getvalue().strip("\n").splitlines()]
    return "".join(f"{line}\n" for line in lines).lstrip("\n")


def _commands(code: str, alone: bool = False) -> Iterator[list[str]]:
    """The `icrl` commands of an sh block, without the program's name."""
    for line in re.sub(r"\\\n|\$\(.*?\)", "", code).splitlines():
        for command in re.sub(r"\s+#\s.*", "", line).split(";"):
            words = shlex.split(command)
            if words[:1] == ["icrl"]:
                yield words[1:]
            else:
                assert not (alone and words), f"only icrl is run here, not {command!r}"


def _untimed(text: str | None) -> str:
    return _SECONDS.sub("... s", text or "")


@contextmanager
def _extra_missing_at_most(block: Block) -> Iterator[None]:
    """Skip a block that says so where its extra is not installed, but not on CI."""
    try:
        yield
    except ImportError:
        if not block.needs_extra or "CI" in os.environ:
            raise
        pytest.skip("its extra is not installed")


@pytest.mark.parametrize("block", RUN, ids=_id)
def test_code_prints_what_the_page_shows(block: Block) -> None:
    with _extra_missing_at_most(block):
        assert _untimed(_printed(block)) == _untimed(block.output), "python -m tests.test_docs --write"


@pytest.mark.parametrize("block", READ, ids=_id)
def test_code_that_is_not_run_compiles_and_its_imports_resolve(block: Block) -> None:
    tree = compile(block.code, block.page, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with _extra_missing_at_most(block):
        _import_all_of(tree)


def _import_all_of(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name) or find_spec(f"{node.module}.{alias.name}"), alias.name


COMMANDS = [
    pytest.param(command, id=f"{_id(block)}-{number}")
    for block in BLOCKS
    if block.kind != "python" and not block.is_run
    for number, command in enumerate(_commands(block.code))
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_not_run_has_known_options_and_arms(command: list[str]) -> None:
    group: Any = typer.main.get_command(app)
    name, *arguments = command
    parameters = group.commands[name].make_context(name, arguments).params
    for arm in read_arms(parameters["topologies"]) if name == "bench" else ():
        options = arm.arguments(8, {})
        if "switch_model" in options:
            options["switch_model"] = lambda: ""
        build(model=lambda: "", evaluator=lambda: 0.0, **options)


def test_every_public_name_is_in_the_reference() -> None:
    shown = (DOCS / "reference" / "index.md").read_text(encoding="utf-8").splitlines()
    assert [name for name in icrl_graph.__all__ if f"::: icrl_graph.{name}" not in shown] == []


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in PAGES)


def test_every_page_is_linked_from_another() -> None:
    pages = {page: page.read_text(encoding="utf-8") for page in DOCS.glob("*.md")}
    linked = {page for page in pages for other, text in pages.items() if page != other and f"]({page.name}" in text}
    assert {page.name for page in pages.keys() - linked} == {"index.md"}


# ------------------------------------------------------------------------------------------------------------- the site

needs_docs = pytest.mark.skipif(
    find_spec("zensical") is None and "CI" not in os.environ, reason="needs zensical: pip install 'icrl-graph[docs]'"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The site, built in a temporary folder, and what zensical printed."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    shutil.copytree(DOCS, folder / "docs")
    (folder / "icrl_graph").symlink_to(ROOT / "icrl_graph")
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    output = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)
    assert done.returncode == 0, output
    return folder / "site", output


class _Reader(HTMLParser):
    """Reads what a page loads, and where its links lead."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loads: set[str] = set()
        self.links: set[str] = set()
        self.classes: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.classes.update(values.get("class", "").split())
        if "href" in values:
            (self.links if tag == "a" else self.loads).add(values["href"])
        self.loads.update(values[name] for name in ("src", "srcset", "data", "poster") if name in values)
        self.loads.update(_addresses(values.get("style", "")))


def _addresses(css: str) -> list[str]:
    addresses: list[str] = re.findall(r"(?:url\(|@import)\s*['\"]?([^'\")\s;]+)", css)
    return [address for address in addresses if not address.startswith("data:")]


def _is_outside(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme not in ("", "data")


@needs_docs
def test_the_site_is_built_without_a_warning(built: tuple[Path, str]) -> None:
    _, output = built
    usual = re.compile(r"Build started|Build finished in .*|No issues found")
    assert [line for line in output.splitlines() if not usual.fullmatch(line.strip())] == []


@needs_docs
def test_no_page_of_the_site_loads_anything_from_outside(built: tuple[Path, str]) -> None:
    site, _ = built
    pages = [_Reader(page) for page in site.rglob("*.html")]
    styles = [address for css in site.rglob("*.css") for address in _addresses(css.read_text(encoding="utf-8"))]
    assert len(pages) > len(PAGES)
    assert [address for address in {*styles, *(a for page in pages for a in page.loads)} if _is_outside(address)] == []
    # Elements for which the theme's script would fetch something.
    assert {"mermaid", "glightbox", "arithmatex"}.isdisjoint(name for page in pages for name in page.classes)


@needs_docs
def test_whatever_a_page_of_the_site_refers_to_is_there(built: tuple[Path, str]) -> None:
    site, _ = built
    missing = []
    for page in site.rglob("*.html"):
        reader = _Reader(page)
        for address in {*reader.loads, *reader.links}:
            path = unquote(urlsplit(address).path)
            target = site / path[1:] if path.startswith("/") else page.parent / path
            if path and not _is_outside(address) and not target.exists():
                missing.append((page.name, address))
    assert missing == []


def _write() -> None:
    """Write the outputs of all pages again, but for those that differ only in their times."""
    for page in SOURCES:
        text = page.read_text(encoding="utf-8")
        for block in reversed([block for block in RUN if block.page == page]):
            printed = _printed(block)
            if _untimed(printed) != _untimed(block.output):
                shown = f"\n\n```text\n{printed}```" if printed else ""
                text = text[: block.end] + shown + text[block.whole :]
                print(f"{page.relative_to(ROOT)}, line {block.line}")
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.test_docs --write")
    os.environ["LANGSMITH_TRACING"] = "false"
    _write()


@pytest.mark.parametrize(
    ("option", "names"),
    [("memory", MEMORIES), ("schedule", tuple(SCHEDULES)), ("layout", tuple(LAYOUTS)), ("show", ABLATIONS)],
)
def test_the_readme_lists_the_choices_that_there_are(option: str, names: tuple[str, ...]) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{option}` \| (.*) \|$", text, re.M)
    assert {name for name in names if f"`{name}`" not in row} == set()
