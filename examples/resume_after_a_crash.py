"""A run is killed in the midst of a call of its model. Gone on with, it pays for that call again and for no other."""

import sys
from pathlib import Path
from random import Random
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory
from typing import Any

from icrl_graph import chat_model, improve
from icrl_graph.tasks.hidden_color import closeness, tasks

MODEL = chat_model("learner:hidden-color")  # a language model instead: chat_model("openai:gpt-4.1-mini")


def run(folder: str, hang_in: int | None = None) -> None:
    """Begins the run, goes on with it, or, once it has ended, tells what it came to: by the same call."""
    paid = Path(folder, "paid")

    def model(messages: list[dict[str, Any]], rng: Random) -> str:
        with paid.open("a") as notes:
            notes.write(".")  # for each call that is made
        if paid.stat().st_size == hang_in:
            print(f"call {hang_in} is in flight", flush=True)
            sys.stdin.read()  # nothing comes, as from a slow server
        return MODEL.invoke(messages, seed=rng.getrandbits(32)).text

    result = improve(**tasks(1, seed=7)[0], score=closeness, model=model, seed=0, path=Path(folder, "run.sqlite"))
    print(f"{result.answer} earns {result.reward}: {len(result.episodes)} attempts, {paid.stat().st_size} calls in all")


if len(sys.argv) > 1:  # the child, which never gets beyond its fifth call
    run(sys.argv[1], hang_in=5)
else:
    with TemporaryDirectory() as folder, Popen([sys.executable, __file__, folder], stdin=PIPE, stdout=PIPE) as child:
        for line in child.stdout or ():
            child.kill()  # SIGKILL
            print(line.decode().strip(), "and the process killed")
        run(folder)
