"""A run of another library's optimiser, to be killed and begun again by test_arena.py, which counts its calls.

Its arguments: the name of the arm, the address of the model's server, the file of the run.
"""

import json
import sys
from types import SimpleNamespace

from tests.test_arena import counted, play

if __name__ == "__main__":
    name, base_url, path = sys.argv[1:]
    result = play(name, SimpleNamespace(base_url=base_url), path=path)  # type: ignore[arg-type]
    print(json.dumps([result.answer, result.reward, *counted(result.usage)]))
