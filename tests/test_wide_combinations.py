"""Wide rounds together with limits of feedback, a switch, stop rules and confirmations: all of them count rounds."""

from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

from icrl_graph import FunctionModel, ModelError, Reward, chat_model, create_icrl, improve
from icrl_graph.prompts.layouts import LAYOUTS, parse
from icrl_graph.testing import OpenAIServer, ScriptedModel
from tests.helpers import GAME, nearness, without_cost
from tests.promises.ways import WAYS
from tests.test_allocation import Player, calls_of, compared
from tests.test_wide_rounds import LOOPS, REFLECTING, words

LONG = "error: first\n" + "at some line\n" * 60 + "assert 1 == 2"


def _cheap(reply: Any = lambda: "50") -> Any:
    return FunctionModel(reply=reply, name="cheap")


def _strong(reply: Any = lambda: "49") -> Any:
    return FunctionModel(reply=reply, name="strong")


def _rounds_by(result: Any) -> str:
    """By round who played it: c for the cheap model, s for the strong one."""
    names = {(each["round"], "s" if each["model"] == "switch_model" else "c") for each in result.episodes}
    return "".join(name for _, name in sorted(names))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("spread", ["same", "differ"])
def test_all_feedback_of_the_latest_round_is_whole_and_no_prompt_cache_breaks(layout: str, spread: str) -> None:
    model = ScriptedModel(words)
    options: Any = {"layout": layout, "spread": spread, "width": 2, "rounds": 4, "feedback_limit": 50}
    result = improve("Say it.", lambda: Reward(value=0.5, feedback=LONG), model=model, **options)
    told = [[attempt.feedback == LONG for attempt in parse(prompt).attempts] for prompt in model.prompts]
    assert told == [rounds for n in range(4) for rounds in [[False] * (2 * n - 2) + [True] * min(2, 2 * n)] * 2]
    assert "breaks" not in result.usage


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", LOOPS)
def test_a_switch_comes_after_rounds_without_a_better_reward_and_is_of_the_whole_round(method: str, way: str) -> None:
    options: Any = {"topology": method, "model": _cheap(), "switch_model": _strong(), "width": 3, "rounds": 5}
    result = WAYS[way](**GAME, score=nearness, switch_after=2, **options)
    assert _rounds_by(result) == "cccss"
    reflected = [each["reflection"] for each in result.episodes if "reflection" in each]
    assert reflected == (["50"] * 9 + ["49"] * 3 if method in REFLECTING else [])


@pytest.mark.parametrize(
    ("options", "played", "stopped"),
    [
        ({"stop": "gain:0.1"}, "cccss", "gain"),  # begins anew with the switch, which goes first if it is due
        ({"stop": "gain:0.15"}, "cc", "gain"),
        ({"stop": "gain:0.1", "width": 2}, "cc", "gain"),
        ({"stop": "gain:0.1", "width": 2, "switch_after": 1}, "ccs", "gain"),
        ({"stop": "gain:0.1", "width": 2, "switch_memory": "last:2"}, "cc", "gain"),
        ({"patience": 2, "width": 2}, "cccss", "plateau"),
        ({"patience": 2, "width": 2, "confirmations": 2, "feedback_limit": 20}, "cccss", "plateau"),
    ],
)
def test_what_ends_a_run_counts_rounds_and_begins_anew_with_the_switch(options: Any, played: str, stopped: str) -> None:
    models: Any = {"model": _cheap(), "switch_model": _strong()}
    result = improve("Say it.", lambda: 0.2, **models, **{"switch_after": 2, "rounds": 9, "target": 1.0, **options})
    assert (_rounds_by(result), result.stopped) == (played, stopped)


def test_no_wide_round_begins_whose_confirmations_could_not_all_be_paid() -> None:
    judge: Any = RunnableLambda(lambda given: 1.0)
    options: Any = {"width": 4, "target": 1.0, "confirmations": 3, "max_calls": 10}
    result = improve("Say it.", judge, model=_cheap(), **options)
    assert (result.stopped, result.rewards, result.usage["calls"]) == ("success", [1.0, 1.0], 8)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", LOOPS)
@pytest.mark.parametrize("fails_at", [3, 8, 14])
def test_a_run_with_all_of_them_that_breaks_off_goes_on_as_if_it_had_not(
    method: str, way: str, fails_at: int, tmp_path: Path
) -> None:
    asked: list[Any] = []

    def once(messages: Any, rng: Any) -> str:
        asked.append(messages)
        if len(asked) == fails_at:
            raise ModelError("the key has expired")
        return words(messages, rng)

    def judged(response: str) -> Any:
        return {"value": 0.9 if len(response) == 1 else 0.5, "feedback": f"{response}: {LONG}"}

    def run(reply: Any, **more: Any) -> Any:
        models = {"model": _cheap(reply), "switch_model": _strong(reply)}
        stops: Any = {"target": 0.9, "confirmations": 2, "stop": "gain:0.001", "switch_after": 1, "patience": 3}
        options: Any = {"topology": method, "width": 2, "spread": "differ", "seed": 1, "rounds": 4, **stops}
        return WAYS[way](**GAME, score=judged, feedback_limit=20, **options, **models, **more)

    whole, saved = run(words), {"path": tmp_path / "run.sqlite"}
    if fails_at <= whole.usage["calls"]:
        with pytest.raises(ModelError):
            run(once, **saved)
    result = run(once, **saved)
    assert without_cost(result.episodes) == without_cost(whole.episodes)
    assert (result.stopped, result.usage_by_model.keys()) == (whole.stopped, whole.usage_by_model.keys())


def test_in_its_first_round_the_new_models_provider_has_nothing_of_the_prompt_so_one_call_goes_ahead() -> None:
    servers = [OpenAIServer(lambda: "1", cache_block=16, latency=0.05) for _ in range(2)]
    with servers[0] as first, servers[1] as new:
        models = {"model": first.base_url, "switch_model": new.base_url}
        options: Any = {name: chat_model("openai:any", base_url=url) for name, url in models.items()}
        result = improve("Write. " * 700, lambda: 0.5, **options, width=2, rounds=3, switch_after=1)
    assert sorted(each["costs"]["generate"].get("cached", 0) > 0 for each in result.episodes[4:]) == [False, True]


def test_allocated_wide_rounds_pass_no_total(tmp_path: Path) -> None:
    arm = "icrl+width=2+allocate=15"
    calls = calls_of(compared(tmp_path, Player(), arm, allocate=None), arm)
    assert sum(calls.values()) == 14


@pytest.mark.parametrize("setting", ["schedule", "spread", "switch_schedule"])
def test_whatever_asks_by_a_name_of_its_own_may_have_its_text(setting: str) -> None:
    def mine(*given: Any) -> str:
        return "mine"

    options: Any = {setting: mine, **({"switch_after": 1} if setting == "switch_schedule" else {})}
    create_icrl(_cheap(), nearness, instructions={"mine": "As I do."}, **options).compile()
