"""What the package index shows, and what checks the repository: links, the fast tests, pre-commit, the workflow."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

import icrl_graph
from tests.conftest import SLOW

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINK = re.compile(r"\]\(([^)]*)\)|(?:href|src)=\"([^\"]*)\"")


def _links(text: str) -> list[str]:
    return [markdown or html for markdown, html in LINK.findall(text)]


def _yaml(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_links_of_the_readme_lead_to_files_of_the_repository() -> None:
    relative = [link for link in _links(README) if not link.startswith("https://")]
    assert len(relative) > 10
    assert [link for link in relative if not (ROOT / link).is_file()] == []


def test_on_the_package_index_every_link_is_absolute_and_leads_to_the_released_version() -> None:
    shown = README
    hook = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    for rule in hook["substitutions"]:
        shown = re.sub(rule["pattern"], rule["replacement"], shown)
    assert [link for link in _links(shown) if not link.startswith("https://")] == []
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", shown)
    assert pictures
    assert all(picture.startswith("https://raw.") and "/v$HFPR_VERSION/" in picture for picture in pictures)
    assert len(_links(shown)) == len(_links(README))
    assert "/README.md" in PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]  # not added by itself


@pytest.mark.skipif(
    find_spec("hatchling") is None and "CI" not in os.environ, reason="needs hatchling: pip install 'icrl-graph[test]'"
)
def test_the_source_distribution_has_the_skill_and_what_is_no_python(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (built,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(built) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    wanted = [path for top in ("skills", "icrl_graph/cli/starter") for path in (ROOT / top).rglob("*.*")]
    assert len(wanted) > 7
    assert {str(path.relative_to(ROOT)) for path in wanted if path.suffix != ".pyc"} <= held
    assert "icrl_graph/cli/langgraph.json" in held


def test_contributing_names_files_that_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:icrl_graph|tests|docs)/[\w/.]+|[A-Z]+\.md)`", text)
    assert len(paths) > 10
    assert [path for path in paths if "NAME" not in path and not (ROOT / path).exists()] == []


def test_the_version_is_that_of_the_changelog() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert newest is not None
    assert newest[1] == icrl_graph.__version__


def test_every_slow_file_is_a_file_of_tests() -> None:
    assert [name for name in SLOW if not (ROOT / "tests" / f"test_{name}.py").is_file()] == []


def test_pre_commit_needs_no_other_repository_and_runs_the_checks_of_make() -> None:
    (local,) = _yaml(".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    assert {hook["language"] for hook in local["hooks"]} == {"system"}
    hooks = [hook["entry"].split()[:2] for hook in local["hooks"]]
    assert hooks == [[".venv/bin/ruff", "format"], [".venv/bin/ruff", "check"], [".venv/bin/mypy"]]


def test_the_workflow_runs_what_ci_runs_with_the_least_permissions() -> None:
    workflow = _yaml(".github/workflows/test.yml")
    assert workflow["permissions"] == {"contents": "read"}
    steps = workflow["jobs"]["test"]["steps"]
    assert steps[-1] == {"run": "bash .ci/run"}
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"]) for step in steps[:-1])
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"][0] in PROJECT["project"]["requires-python"]


@pytest.mark.parametrize(
    ("answers", "plays"),
    [("true", "icrl demo words"), ("false", "(VENV/model.log says why), so a small network plays.\nicrl demo")],
)
def test_make_demo_plays_the_language_model_where_it_answers_and_else_the_small_network(
    answers: str, plays: str, tmp_path: Path
) -> None:
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    (tmp_path / "bin").mkdir()
    for name, does in (("python", answers), ("icrl", 'echo "icrl $*"')):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    for stamp in ("pip", ".demo"):
        (tmp_path / stamp).touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # of `make test`
    command = ["make", "demo", f"VENV={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.replace(str(tmp_path), "VENV").endswith(f"{plays}\n")
