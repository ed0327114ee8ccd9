"""The same work by others, side by side: CPU of a round, over that of `create_icrl` on the same server."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.performance.lab import ROOT, child, full_only, record, serving

TASKS, ROUNDS = 20, 10
DSPY = "dspy==3.4.1"
PEERS = {
    "bare": ("ours", "a bare loop over the openai client", ">= 1.5x"),
    "reflection": ("ours", "LangGraph's reflection example (two calls a round, no rewards)", ">= 3x"),
    "best_of_n": ("ours-best-of-n", "DSPy's BestOfN (no history, no records of its attempts)", ">= 1.2x"),
    "refine": ("ours", "DSPy's Refine (two calls a round, no history but advice)", ">= 2x"),
}
"""By the name of a peer: the set-up of ours that does the same work, what it does less, and the goal."""


def _dspy(folder: Path) -> tuple[str, str]:
    """A Python that has DSPy, in an environment that is thrown away; else why there is none."""
    try:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True, timeout=120)
        python = str(folder / "bin" / "python")
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", DSPY]
        subprocess.run(install, check=True, capture_output=True, text=True, timeout=600)
    except (subprocess.SubprocessError, OSError) as error:
        return "", f"{DSPY} could not be installed: {str(getattr(error, 'stderr', '') or error).strip()[-80:]!r}"
    return python, ""


def _answer(python: str, what: str, base_url: str) -> dict[str, Any]:
    command = [python, "tests/performance/peers.py", what, str(TASKS), str(ROUNDS), base_url]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    took: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return took


@full_only
def test_others_side_by_side(tmp_path: Path) -> None:
    dspy, why = _dspy(tmp_path / "dspy")
    fields = ["[[ ## answer ## ]]", "r" * 400, "[[ ## discussion ## ]]", "d", "[[ ## advice ## ]]", "{}"]
    with serving(says="\n".join([*fields, "[[ ## completed ## ]]"])) as server:
        own = {}
        for set_up, name in (("ours", "create_icrl"), ("ours-best-of-n", "create_best_of_n")):
            ours = child("loops", set_up, TASKS, ROUNDS, server.base_url)
            own[set_up] = 1000 * ours["cpu"] / ours["rounds"]
            record(f"CPU of a round through HTTP, `{name}`", "stated", f"{own[set_up]:.1f} ms", True)
        for what, (set_up, name, goal) in PEERS.items():
            python = dspy if what in ("best_of_n", "refine") else sys.executable
            if not python:
                record(f"CPU of a round through HTTP, {name}, over ours", goal, why, False)
                continue
            before = server.counts()["calls"]
            took = _answer(python, what, server.base_url)
            each, calls = 1000 * took["cpu"] / took["rounds"], server.counts()["calls"] - before
            ratio, figures = each / own[set_up], f"{each:.1f} ms, {calls / took['rounds']:.1f} calls"
            met = ratio >= float(goal.strip(">=x "))
            record(f"CPU of a round through HTTP, {name}, over ours", goal, f"{ratio:.2f}x ({figures})", met)
