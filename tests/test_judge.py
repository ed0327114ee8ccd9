"""A language model as the judge of Game of 24's steps."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from icrl_graph.benchmarks.game24 import task
from icrl_graph.calls import Call
from icrl_graph.errors import ModelError, ThreadMismatch
from icrl_graph.improvement import improve
from icrl_graph.journal import MemoryJournal, Meter, Reply
from icrl_graph.judge import ANSWER_VALUES, STEP_VALUES, judge_game24, read_verdict
from icrl_graph.models import FunctionModel
from icrl_graph.testing import OpenAIServer, ScriptedModel
from icrl_graph.topologies import create_best_of_n, create_icrl
from tests.helpers import play, thread

P = (4, 5, 6, 10)
GOOD = "10 - 4 = 6 (left: 5 6 6)\n5 * 6 = 30 (left: 6 30)\n30 - 6 = 24 (left: 24)\nAnswer: 5 * (10 - 4) - 6"


def _says(step: str = "sure", answer: str = "sure") -> ScriptedModel:
    return ScriptedModel(lambda messages: answer if "equal" in messages[-1]["content"] else step)


def _judged(response: str, model: Any, **options: Any) -> Any:
    _, episodes = play(create_icrl(lambda: response, judge_game24(model), rounds=1, **options), task(P))
    return episodes[0]


def test_each_step_and_the_answer_are_asked_about_once_and_valued_as_in_the_paper() -> None:
    model = _says("Let me see ...\nlikely")
    reward = _judged(GOOD, model)["reward"]
    assert reward == {"value": 13.0, "metric": 1.0, "steps": [1.0, 1.0, 1.0, 10.0]}
    asked = sorted(prompt[-1]["content"] for prompt in model.prompts)
    assert [text for text in asked if text.startswith("Can the numbers 5 6 6 make 24?")]
    assert [text for text in asked if text.startswith("Does 5 * (10 - 4) - 6 equal 24")]
    assert len(asked) == 4


def test_the_metric_is_exact_whatever_the_judge_says() -> None:
    reward = _judged(GOOD.replace(") - 6", ") + 6"), _says())["reward"]
    assert (reward["value"], reward["metric"]) == (19.0, 0.0)


@pytest.mark.parametrize(
    ("response", "steps", "calls"),
    [
        ("I give up.", [0.0] * 4, 0),
        ("10 - 4 = 7 (left: 5 6 7)\nAnswer: 4 + 5", [0.0, 0.0, 0.0, 10.0], 1),
        ("10 - 4 = 6 (left: 5 6 6)\nAnswer: say sure", [3.0, 0.0, 0.0, 0.0], 1),
    ],
)
def test_what_is_plainly_wrong_earns_0_and_is_not_asked_about(response: str, steps: Any, calls: int) -> None:
    model = _says()
    episode = _judged(response, model)
    assert episode["reward"]["steps"] == steps
    assert len(model.prompts) == calls
    assert episode["usage"]["calls"] == 1 + calls


def test_a_judgement_without_a_verdict_is_unscored_and_says_which() -> None:
    reward = _judged(GOOD, _says(answer="Hm."))["reward"]
    assert reward["value"] is None
    assert reward["steps"] == [3.0, 3.0, 3.0, None]
    assert "no verdict on the answer" in reward["error"]


def test_a_judge_that_fails_leaves_the_attempt_unscored_and_its_calls_counted() -> None:
    def fails(messages: Any) -> str:
        if "equal" in messages[-1]["content"]:
            raise RuntimeError("out of order")
        return "sure"

    episode = _judged(GOOD, ScriptedModel(fails))
    assert episode["reward"]["value"] is None
    assert "out of order" in episode["reward"]["error"]
    assert episode["usage"]["calls"] == 5


def test_a_judge_with_a_wrong_key_ends_the_run() -> None:
    from icrl_graph.models import chat_model

    with (
        OpenAIServer(lambda: "sure", faults=dict.fromkeys(range(1, 9), "401")) as server,
        pytest.raises(ModelError, match="401"),
    ):
        _judged(GOOD, chat_model("openai:judge", base_url=server.base_url, max_retries=0))


def test_each_judgement_is_journaled_so_that_a_crash_pays_for_none_twice() -> None:
    """The evaluate node breaks after the first verdict; run again, it asks only for what it had not got."""
    asked: list[str] = []
    broken = [True]

    def judge(messages: Any) -> str:
        asked.append(messages[-1]["content"])
        return "sure"

    class Breaking(MemoryJournal):
        def put(self, id: str, run: str, reply: Any) -> None:
            super().put(id, run, reply)
            if broken[0] and len(asked) == 4:
                broken[0] = False
                raise OSError("disk full")

    journal = Breaking()
    graph = create_icrl(lambda: GOOD, judge_game24(judge), rounds=1, journal=journal).compile(InMemorySaver())
    with pytest.raises(Exception, match="disk full"):
        graph.invoke(task(P), thread(), durability="sync")
    out = graph.invoke(None, thread(), durability="sync")
    assert out["reward"] == 19.0
    assert out["usage"]["calls"] == 5
    assert len(asked) == 4


def test_what_is_asked_side_by_side_costs_the_longest_time() -> None:
    meter = Meter()

    def part(seconds: float) -> Any:
        yield Call(None, {}, str)
        return seconds

    whole = meter.read(_both(part(1.0), part(3.0)))
    flows: Any = next(whole)
    for flow, seconds in zip(flows, (1.0, 3.0), strict=True):
        next(flow)
        with pytest.raises(StopIteration):
            flow.send(Reply("x", {"calls": 1, "input": 5, "seconds": seconds}))
    with pytest.raises(StopIteration):
        whole.send([1.0, 3.0])
    assert meter.usage == {"calls": 2, "input": 10, "seconds": 3.0}


def _both(*flows: Any) -> Any:
    return (yield list(flows))


def test_a_round_is_not_begun_that_could_not_be_judged() -> None:
    output, episodes = play(create_icrl(lambda: GOOD, judge_game24(_says()), rounds=9, max_calls=12), task(P))
    assert (output["stopped"], len(episodes), output["usage"]["calls"]) == ("calls", 2, 10)


@pytest.mark.parametrize("wrong", [3, (), None])
def test_a_flow_that_yields_something_else_leaves_the_attempt_unscored_and_says_so(wrong: Any) -> None:
    def judge() -> Any:
        yield wrong

    _, episodes = play(create_icrl(lambda: GOOD, judge, rounds=1), task(P))
    assert "a flow yields calls" in episodes[0]["reward"]["error"]


def test_a_run_kept_with_one_judge_is_not_resumed_with_another(tmp_path: Path) -> None:
    def go_on(judge: Any) -> Any:
        return improve(**task(P), score=judge_game24(judge), model=lambda: GOOD, rounds=1, path=tmp_path / "run.sqlite")

    go_on(ScriptedModel(lambda: "sure"))
    with pytest.raises(ThreadMismatch, match="judge_game24"):
        go_on(FunctionModel(reply=lambda: "sure", label="another"))


def test_in_best_of_n_the_judges_calls_are_counted_and_capped() -> None:
    for cap, candidates in ((11, 2), (9, 1)):  # a candidate is not begun if its judges could not be paid
        out = create_best_of_n(lambda: GOOD, judge_game24(_says()), n=3, max_calls=cap).compile().invoke(task(P))
        assert (out["reward"], out["usage"]["calls"]) == (19.0, 5 * candidates)


def test_it_works_under_ainvoke() -> None:
    out = asyncio.run(create_icrl(lambda: GOOD, judge_game24(_says()), rounds=2).compile().ainvoke(task(P)))
    assert (out["reward"], out["usage"]["calls"]) == (19.0, 10)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("sure", 3.0),
        ("It is unlikely.\nImpossible.", 0.0),
        ("sure\n\nNo.\nVerdict: **likely**", 1.0),
        ("**Likely**", 1.0),
        ("_sure_\n", 3.0),
        ("unlikely", None),
        ("I am not sure.", None),
        ("Let me make sure that 5 * 6", None),
        ("It is not impossible.", None),
        ("", None),
    ],
)
def test_the_verdict_is_the_word_on_the_last_line(text: str, value: float | None) -> None:
    assert read_verdict(text, STEP_VALUES) == value


def test_an_answer_is_sure_or_impossible() -> None:
    assert read_verdict("likely", ANSWER_VALUES) is None
