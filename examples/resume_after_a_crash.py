"""A run is killed during a call of its model. Resumed, it pays for that call again and for no other."""

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
    """Starts the run, resumes it, or returns its result once it has ended: all by the same call."""
    paid = Path(folder, "paid")

    def model(messages: list[dict[str, Any]], rng: Random) -> str:
        with paid.open("a") as file:
            file.write(".")  # one for each call
        if paid.stat().st_size == hang_in:
            print(f"call {hang_in} is in flight", flush=True)
            sys.stdin.read()  # waits, as for a slow server
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
