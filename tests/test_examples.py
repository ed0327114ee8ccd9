"""Each example runs as it stands, offline, is short, and prints what docs/examples.md says that it prints.

`python -m tests.test_examples --write` writes into that page what they print.
"""

import os
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGE = ROOT / "docs" / "examples.md"
NEEDS = {"gepa_proposer": "gepa", "temporal_workflow": "temporalio"}
"""Packages of other libraries: without them an example is skipped, but not on CI."""
PRINTED = re.compile(r"(<!-- printed by examples/(\w+)\.py -->\n\n```text\n)(.*?)(\n```\n)", re.S)


def printed_by(path: Path, folder: Path) -> str:
    small = ["1"] if path.stem.endswith("_robustness") else []
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # those of packages, too
    command, environment = [sys.executable, str(path), *small], {**os.environ, "PATH": programs}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _masked(text: str) -> str:
    """Without the seconds that it took."""
    return re.sub(r"\d+\.\d+ s\b", "... s", text).strip()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_as_it_stands_and_prints_what_its_page_says(path: Path, tmp_path: Path) -> None:
    needed = NEEDS.get(path.stem)
    if needed is not None and find_spec(needed) is None and "CI" not in os.environ:
        pytest.skip(f"needs {needed}")
    printed = printed_by(path, tmp_path)
    shown = {name: text for _, name, text, _ in PRINTED.findall(PAGE.read_text(encoding="utf-8"))}
    assert printed
    if path.stem in shown:
        assert _masked(printed) == _masked(shown[path.stem])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= (61 if path.stem == "temporal_workflow" else 44)


def _write() -> None:
    def printed(match: re.Match[str]) -> str:
        with tempfile.TemporaryDirectory() as folder:
            text = printed_by(ROOT / "examples" / f"{match[2]}.py", Path(folder)).strip("\n")
        return match[1] + text + match[4]

    PAGE.write_text(PRINTED.sub(printed, PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    _write()
