"""A run that logs each paid call and tells its parent how far it is; killed and started again by test_crash.py."""

import hashlib
import json
import os
import sys
from typing import Any

from icrl_graph import improve


def main(folder: str, topology: str, size: int) -> None:
    log = os.open(f"{folder}/paid.log", os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    def model(messages: Any, rng: Any) -> str:
        print("asked", flush=True)
        os.write(log, b"paid\n")
        seed = f"{json.dumps(messages)}{rng.random()}"
        return hashlib.sha256(seed.encode()).hexdigest()[:8]

    def score(response: str) -> float:
        print("judged", flush=True)
        return int(response, 16) / 16**8

    options: Any = {"n": size} if topology == "best_of_n" else {"rounds": size}
    result = improve("x" * 200, score, model=model, topology=topology, path=f"{folder}/run.sqlite", seed=0, **options)
    episodes = [{key: value for key, value in e.items() if key != "costs"} for e in result.episodes]
    print("result " + json.dumps([result.answer, result.usage["calls"], episodes]), flush=True)


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
