"""A run of three calls that is kept in a file; interrupted and run again by test_faults.py.

Its arguments: the way it is run, the server's address and the file.
"""

import asyncio
import sys
from typing import Any

from icrl_graph import aimprove, chat_model, improve
from tests.ctrl_c import accept_ctrl_c


def always(response: str) -> float:
    return 1.0


def play(way: str, url: str, path: str) -> Any:
    options: Any = {"model": chat_model("openai:any", base_url=url, max_retries=0), "path": path}
    if way == "aimprove":
        return asyncio.run(aimprove("Say 42.", always, rounds=3, **options))
    options["n" if way == "best_of_n" else "rounds"] = 3
    return improve("Say 42.", always, topology=way, **options)


if __name__ == "__main__":
    accept_ctrl_c()
    play(*sys.argv[1:])
