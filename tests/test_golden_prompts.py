"""Every prompt of fixed runs, byte for byte as it was when the golden file was written.

Learners and caches read prompts, so a prompt that changes without intent is a bug. Written, after a change that is
meant, by

    python -m tests.test_golden_prompts --write
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest

from icrl_graph import FunctionModel, chat_model, improve, judge_game24, llm_judge, pairwise_judge, shuffled
from icrl_graph.benchmarks.registry import find_benchmark
from icrl_graph.environments.rollouts import episode_return, rollout
from tests.corridor import Corridor

GOLDEN = Path(__file__).parent / "golden" / "prompts.json"
TASK: Any = "Find the number."
CHAT: Any = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Find <attempt> the"}, {"type": "text", "text": "number."}]},
]
Prompts = list[Any]
Run = tuple[str, Callable[[], Prompts]]


class Recorder:
    """A model that answers with a hash of its prompt, and keeps the prompt."""

    def __init__(self, reply: Callable[..., Any] | None = None) -> None:
        self.prompts: Prompts = []
        self._reply = reply

    def __call__(self, messages: list[dict[str, Any]], rng: Random, temperature: float | None) -> Any:
        self.prompts.append(messages)
        if self._reply is not None:
            return self._reply(messages, rng)
        number = _number(messages)
        return "No number <attempt>\nReward: 1" if number % 7 == 0 else str(number % 100)


def _number(messages: Any) -> int:
    return int(hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:6], 16)


def score(response: str) -> Any:
    """A reward with steps and feedback; none for what is not a number."""
    value = 1 - abs(int(response) - 42) / 100
    return {"value": value, "steps": [value / 2, None], "feedback": f"{response} is <feedback> off"}


def _played(task: Any = TASK, evaluator: Any = score, reply: Any = None, **options: Any) -> Prompts:
    model = Recorder(reply)
    improve(task, evaluator, model=FunctionModel(reply=model), seed=3, **options)
    return model.prompts


def _topologies() -> Iterator[Run]:
    for topology, layout, task in product(("icrl", "reflexion", "self_refine"), ("turns", "transcript"), (TASK, CHAT)):
        kind = "chat" if task is CHAT else "text"
        yield f"{topology}/{layout}/{kind}", partial(_played, task, topology=topology, layout=layout, rounds=6)
    yield "best_of_n", partial(_played, topology="best_of_n", n=3)
    yield "reflexion/attempts", partial(_played, topology="reflexion", show_attempts=True, rounds=5)


def _settings() -> Iterator[Run]:
    for memory in ("none", "last:2", "best:2", "tokens:60", "positive:0.5", "reflections:2"):
        yield f"memory={memory}", partial(_played, memory=memory, rounds=7)
    for show in ("zero", "hidden", "outcome", "no_feedback", "random", "constant:0.5", "flip:0.5"):
        yield f"show={show}", partial(_played, show=show, rounds=5)
    yield "show=shuffled", partial(_played, show=shuffled([0.25, {"value": 0.5, "steps": [1]}]), rounds=4)
    for schedule in ("autonomous", "explore", "exploit", "plain", "cot", "long_cot", "retry", "refine"):
        yield f"schedule={schedule}", partial(_played, schedule=schedule, rounds=3)
    examples = [{"role": "user", "content": "Find 7."}, {"role": "assistant", "content": "7"}]
    yield "preamble", partial(_played, rounds=5, system="You guess.", examples=examples, warmup=2)
    yield "instructions", partial(_played, rounds=3, instructions={"explore": "Be bold.", "exploit": ""})


def _judged(make: Any, said: str, task: Any = TASK, answer: str = "4 and <attempt>", data: Any = None) -> Prompts:
    judge = Recorder(lambda messages, rng: said)
    improve(task, make(FunctionModel(reply=judge)), model=lambda: answer, task_data=data, rounds=1)
    return judge.prompts


def _judges() -> Iterator[Run]:
    explained = partial(llm_judge, rubric="Is it short?", scale=(0, 5), explain=True)
    yield "llm_judge", partial(_judged, explained, "Score: 3")
    yield "llm_judge/asked twice", partial(_judged, partial(llm_judge, rubric="Is it short?"), "Hm.", CHAT)
    compared = partial(pairwise_judge, rubric="Which?")
    yield "pairwise_judge", partial(_judged, compared, "A", data={"reference": "5"})
    puzzle, text = find_benchmark("game24").read("4,5,6,10"), find_benchmark("writing").read("3")
    steps = "6 - 5 = 1 (left: 1 4 10)\n10 + 1 = 11 (left: 4 11)\nAnswer: (6 - 5) * 4 * 6"
    yield "judge_game24", partial(_judged, judge_game24, "sure", puzzle["task"], steps, puzzle["task_data"])
    judged = find_benchmark("writing").judged
    yield "judge of writing", partial(_judged, judged, "Score: 7", text["task"], "A.\n\nB.", text["task_data"])


def _learnt(name: str, item: str, learner: str, layout: str) -> Prompts:
    benchmark, player = find_benchmark(name), chat_model(f"learner:{learner}")
    assert isinstance(player, FunctionModel)

    def reply(messages: Any, rng: Random) -> Any:
        return player.reply(messages=messages, rng=rng, temperature=None)

    inputs, score = benchmark.read(item), benchmark.evaluator
    return _played(inputs["task"], score, reply, task_data=inputs["task_data"], rounds=6, layout=layout)


def _benchmarks() -> Iterator[Run]:
    for layout in ("turns", "transcript"):
        yield f"hidden_color/{layout}", partial(_learnt, "hidden-color", "#3b9", "hidden-color", layout)
        yield f"game24/{layout}", partial(_learnt, "game24", "4,5,6,10", "game24", layout)
    inputs, score = find_benchmark("writing").read("5"), find_benchmark("writing").evaluator
    yield "writing", partial(_played, inputs["task"], score, task_data=inputs["task_data"], rounds=3)


def _walked(thoughts: bool, **options: Any) -> Prompts:
    def act(messages: Any, rng: Random) -> str:
        action = "right" if _number(messages) % 3 else "left"
        return f"I go on.\nAction: {action}" if thoughts else action

    model = Recorder(act)
    player = rollout(FunctionModel(reply=model), Corridor, max_steps=4, thoughts=thoughts)
    improve(TASK, episode_return, model=player, task_data={"length": 3}, seed=1, **options)
    return model.prompts


def _rollouts() -> Iterator[Run]:
    for thoughts, layout in product((False, True), ("turns", "transcript")):
        yield f"rollout/{layout}/{thoughts}", partial(_walked, thoughts, layout=layout, rounds=3)
    yield "rollout/reflexion", partial(_walked, False, topology="reflexion", rounds=3)
    yield "rollout/best_of_n", partial(_walked, False, topology="best_of_n", n=2)


RUNS = dict(run for runs in (_topologies, _settings, _judges, _benchmarks, _rollouts) for run in runs())


def _recorded(prompts: Prompts) -> dict[str, Any]:
    """The hash of each prompt, and the last one in full: for whoever looks at what has changed."""
    ordered = sorted(json.dumps(prompt, ensure_ascii=False) for prompt in prompts)  # some are sent side by side
    return {"sha256": [hashlib.sha256(p.encode()).hexdigest()[:16] for p in ordered], "longest": max(ordered, key=len)}


@pytest.mark.parametrize("name", RUNS)
def test_every_prompt_is_byte_for_byte_that_of_the_golden_file(name: str) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    recorded = _recorded(RUNS[name]())
    assert recorded["longest"] == golden[name]["longest"]
    assert recorded["sha256"] == golden[name]["sha256"]


def test_the_golden_file_holds_these_runs_and_no_others() -> None:
    assert json.loads(GOLDEN.read_text(encoding="utf-8")).keys() == RUNS.keys()


if __name__ == "__main__" and "--write" in sys.argv:
    GOLDEN.parent.mkdir(exist_ok=True)
    golden = {name: _recorded(run()) for name, run in RUNS.items()}
    GOLDEN.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
