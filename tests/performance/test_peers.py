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
    "bare": "a bare loop over the openai client",
    "reflection": "LangGraph's reflection example (two calls a round)",
    "best_of_n": "DSPy's BestOfN (no history)",
    "refine": "DSPy's Refine (two calls a round)",
}


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
        ours = child("loops", "ours", TASKS, ROUNDS, server.base_url)
        own = 1000 * ours["cpu"] / ours["rounds"]
        record("CPU of a round through HTTP, `create_icrl`", "stated", f"1x ({own:.1f} ms)", True)
        for what, name in PEERS.items():
            python = dspy if what in ("best_of_n", "refine") else sys.executable
            if python:
                before = server.counts()["calls"]
                took = _answer(python, what, server.base_url)
                each, calls = 1000 * took["cpu"] / took["rounds"], server.counts()["calls"] - before
                figures = f"{each / own:.2f}x ({each:.1f} ms, {calls / took['rounds']:.1f} calls)"
            record(f"CPU of a round through HTTP, {name}", "stated", figures if python else why, True)
