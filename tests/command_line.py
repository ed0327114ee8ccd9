"""`icrl` in two ways: within the tests' process, which takes no time to start, and as a process of its own.

A process is for what only a process has: an exit, pipes, signals. Both ways give the same object.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from icrl_graph.cli.shared import app

ROOT = Path(__file__).parents[1]
START = "from tests.ctrl_c import accept_ctrl_c; accept_ctrl_c(); from icrl_graph.cli import main; main()"
Done = subprocess.CompletedProcess[str]


def icrl(*arguments: str) -> Done:
    """Run it here, where this process stands and in its environment."""
    done = CliRunner().invoke(app, list(arguments), prog_name="icrl", env={"COLUMNS": "200"}, catch_exceptions=False)
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def process(*arguments: str, cwd: Path, **environment: str) -> Done:
    """Run it as a process, to its end."""
    with started(*arguments, cwd=cwd, **environment) as running:
        out, errors = running.communicate(timeout=240)
    return subprocess.CompletedProcess(arguments, running.returncode, out, errors)


def started(*arguments: str, cwd: Path, **environment: str) -> Any:
    """Start it as a process."""
    return subprocess.Popen(
        [sys.executable, "-c", START, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200", "PYTHONPATH": str(ROOT), **environment},
    )
