"""Prompts that grow: rendered and hashed as if each were made from scratch, whatever happened in between."""

import asyncio
import threading
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver

from icrl_graph.execution.run_cache import RunCache, digest
from icrl_graph.prompts import incremental as growing
from icrl_graph.prompts.feedback import FeedbackLimits
from icrl_graph.prompts.incremental import PromptSettings, next_prompt
from icrl_graph.prompts.layouts import LAYOUTS, Style, add_turn, render, turns
from icrl_graph.prompts.memory import memory
from icrl_graph.prompts.plan import SCHEDULES, make_plan
from icrl_graph.state.episode import Episode, Message, upsert
from icrl_graph.testing import ScriptedModel
from icrl_graph.topologies.methods import create_best_of_n, create_icrl, create_reflexion
from tests.helpers import GAME, play, thread

_TEXTS = st.sampled_from(["", "one", "two", "<instruction>", "<attempt>\nx\n</attempt>", "é\ud800"])
_TASKS: list[Any] = ["Say it.", [{"role": "system", "content": "S"}, {"role": "user", "content": "Say it."}]]


def _mine(preamble: Any, task: Any, episodes: Any, instruction: str, style: Style) -> list[Message]:
    told = [{"role": "user", "content": f"{episode.get('response')}"} for episode in reversed(episodes)]
    return [*task, *told, {"role": "user", "content": instruction}]


@st.composite
def _lives(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """What happens to a run: rounds, edits of older episodes, a way back to an earlier round, a changed label."""
    happening = st.one_of(
        st.tuples(st.just("round"), st.tuples(_TEXTS, st.sampled_from([None, 0.0, -0.0, 0.5]))),
        st.tuples(st.just("edit"), st.tuples(st.integers(0, 20), _TEXTS)),
        st.tuples(st.just("back"), st.integers(0, 20)),
        st.tuples(st.just("label"), st.sampled_from(["Reward", "Score"])),
        st.tuples(st.just("forget"), st.none()),
    )
    return draw(st.lists(happening, max_size=25))


@given(
    lives=st.lists(_lives(), min_size=1, max_size=3),
    named=st.sampled_from(["all", "none", "last:2", "best:2", "tokens:40", "positive:0.5"]),
    layout=st.sampled_from([*LAYOUTS.values(), _mine]),
    shows=st.sampled_from([("response", "shown"), ("response", "reflection"), ("reflection",)]),
    task=st.sampled_from(_TASKS),
    feedback=st.sampled_from([FeedbackLimits(), FeedbackLimits(16), FeedbackLimits(16, 20), FeedbackLimits(16, 16)]),
    limit=st.integers(1, 3),
)
def test_a_prompt_is_what_rendering_from_scratch_gives(
    lives: Any, named: str, layout: Any, shows: Any, task: Any, feedback: FeedbackLimits, limit: int
) -> None:
    """Of runs that take turns, with episodes that are edited and rounds that are taken back; so is its hash."""
    run_cache, choose, schedule = RunCache(limit), memory(named), SCHEDULES["preset"]
    pasts: list[list[Episode]] = [[] for _ in lives]
    style = Style(shows, feedback=feedback)
    for step in range(max(map(len, lives))):
        for run, life in enumerate(lives):
            if step >= len(life):
                continue
            (what, given), past = life[step], pasts[run]
            if what == "edit" and past:
                at, text = given[0] % len(past), given[1]
                shown: Any = {**past[at]["shown"], "feedback": text}
                patch: Any = {"round": past[at]["round"], "candidate": 0, "shown": shown}
                pasts[run] = upsert(past, [[patch]])
            elif what == "back":
                pasts[run] = past[: given % (len(past) + 1)]
            elif what == "label":
                style = Style(shows, given, feedback=feedback)
            elif what == "forget":
                run_cache.forget(run)
            elif what == "round":
                plan = make_plan(len(past), past, choose, schedule)
                prompt_settings = PromptSettings([], task, style, layout)
                messages, _, now = next_prompt(run_cache.get(run, "rendered"), prompt_settings, past, plan)
                run_cache.put(run, "rendered", now)
                assert messages == render([], task, past, plan, style, layout)
                fresh = digest(RunCache(), run, 0, messages, "beside")
                assert digest(run_cache, run, 0, messages, "beside") == fresh
                messages[-1]["content"] = "whoever is asked may change what he is given"
                response, value = given
                made: Any = {"round": len(past), "candidate": 0, "plan": plan, "response": response}
                shown = {"value": value, "feedback": f"{response}{len(past)}" * (len(past) % 3 * 20)}
                made |= {"reward": {"value": value}, "shown": shown, "reflection": response}
                pasts[run] = upsert(past, [[made]])


def test_whoever_is_asked_may_change_the_parts_of_a_message() -> None:
    lengths = set()

    def model(messages: list[Message]) -> str:
        lengths.add(len(messages[0]["content"]))
        messages[0]["content"].append({"type": "text", "text": "more"})
        return "x"

    parts = [{"type": "text", "text": "Say it."}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    task: Any = [{"role": "user", "content": parts}]
    play(create_icrl(RunnableLambda(model), lambda: 1.0, rounds=3, schedule="plain"), {"task": task})
    assert len(lengths) == 1


_MESSAGES = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "a", ""]), "content": st.sampled_from(["", "1:a", "b"])}
        ),
        st.fixed_dictionaries({"role": st.just("user"), "content": st.sampled_from([[{"text": "a"}], None])}),
        st.fixed_dictionaries({"role": st.just("user"), "content": st.just("b"), "name": st.sampled_from(["x", "y"])}),
    ),
    max_size=8,
)


@given(st.lists(_MESSAGES, min_size=2, max_size=6))
def test_prompts_have_the_same_hash_only_if_they_say_the_same(prompts: list[list[Message]]) -> None:
    """Whatever was hashed before them."""
    run_cache = RunCache()
    hashes = [digest(run_cache, "run", 0, prompt, None) for prompt in prompts]
    for one, this in zip(prompts, hashes, strict=True):
        for other, that in zip(prompts, hashes, strict=True):
            assert (one == other) == (this == that)


@pytest.mark.parametrize("change", ["message", "beside", "around", "kind"])
def test_whatever_is_sent_changes_the_hash(change: str) -> None:
    messages = [{"role": "user", "content": str(i)} for i in range(9)]
    run_cache = RunCache()
    before = digest(run_cache, "run", 0, {"messages": messages, "k": 1}, {"seed": 1})
    changed = [{**messages[0], "content": "x"}, *messages[1:]] if change == "message" else messages
    around: Any = messages if change == "kind" else {"messages": changed, "k": 2 if change == "around" else 1}
    beside = {"seed": 2 if change == "beside" else 1}
    assert digest(run_cache, "run", 0, around, beside) != before


def _breaks(output: dict[str, Any]) -> int:
    return int(output["usage"].get("breaks", 0))


@pytest.mark.parametrize(
    ("layout", "named", "breaks"),
    [
        ("turns", "all", 0),
        ("transcript", "all", 0),
        ("turns", "none", 0),
        ("turns", "last:2", 7),  # from the fourth prompt on, the oldest attempt goes
        ("transcript", "last:2", 7),
    ],
)
def test_prompts_that_do_not_begin_with_the_one_before_are_counted(layout: str, named: str, breaks: int) -> None:
    model = ScriptedModel([f"answer {i}" for i in range(10)])
    output, _ = play(create_icrl(model, lambda: 0.5, rounds=10, layout=layout, memory=named), {"task": "?"})
    assert _breaks(output) == breaks


def test_candidates_side_by_side_break_nothing() -> None:
    output, _ = play(create_best_of_n(ScriptedModel(lambda: "x"), lambda: 0.5, n=4), {"task": "?"})
    assert "breaks" not in output["usage"]


def test_reflections_that_are_added_break_nothing() -> None:
    """Until the oldest of three makes room."""
    for rounds, breaks in ((4, 0), (7, 3)):
        model = ScriptedModel([f"said {i}" for i in range(20)])
        output, _ = play(create_reflexion(model, lambda: 0.5, rounds=rounds), {"task": "?"})
        assert _breaks(output) == breaks


def test_eviction_in_chunks_breaks_once_a_chunk() -> None:
    model = ScriptedModel(lambda: "w" * 100)
    output, episodes = play(create_icrl(model, lambda: 0.5, rounds=20, memory="tokens:400"), {"task": "?"})
    firsts = [episode["plan"]["shown"][0][0] for episode in episodes[1:]]
    assert 0 < _breaks(output) == len(set(firsts)) - 1 < 5


@pytest.mark.parametrize("layout", ["turns", "transcript"])
def test_a_run_that_was_killed_counts_the_same(layout: str) -> None:
    """Another process has nothing remembered: the plan makes the prompt before again."""

    def graph() -> Any:
        model = ScriptedModel(lambda messages: f"answer {len(str(messages))}")
        return create_icrl(model, lambda: 0.5, rounds=8, layout=layout, memory="tokens:60")

    whole, _ = play(graph(), {"task": "?"})
    saver = InMemorySaver()
    begun: Any = {"task": "?"}
    while begun or graph().compile(checkpointer=saver).get_state(thread()).next:
        compiled = graph().compile(checkpointer=saver)
        compiled.invoke(begun, thread(), interrupt_before=["generate", "evaluate"])
        begun = None
    output = graph().compile(checkpointer=saver).get_state(thread()).values
    assert _breaks(output) == _breaks(whole) > 0


def test_an_edit_of_an_older_attempt_is_seen_and_counted() -> None:
    model = ScriptedModel(lambda: "said")
    compiled = create_icrl(model, lambda: 0.5, rounds=5).compile(checkpointer=InMemorySaver())
    compiled.invoke({"task": "?"}, thread(), interrupt_before=["generate"])
    for _ in range(3):
        compiled.invoke(None, thread(), interrupt_before=["generate"])
    compiled.update_state(
        thread(), {"episodes": [{"round": 0, "candidate": 0, "response": "edited"}]}, as_node="build_context"
    )
    output = compiled.invoke(None, thread())
    assert _breaks(output) == 1
    assert model.prompts[-1][1]["content"] == "edited"


def test_whoever_is_asked_may_change_what_he_is_given() -> None:
    seen: list[list[Message]] = []

    def vandal(messages: list[Message]) -> str:
        seen.append([dict(message) for message in messages])
        for message in messages:
            message["content"] = "vandalised"
        messages.clear()
        return "said"

    play(create_icrl(RunnableLambda(vandal), lambda: 0.5, rounds=5), {"task": "?"})
    assert "vandalised" not in str(seen)
    assert all(later[: len(sooner)] == sooner for sooner, later in pairwise(seen))


def _held(graph: Any) -> int:
    return len(graph.parts.driver.run_cache._runs)


def test_nothing_is_remembered_of_runs_that_have_ended() -> None:
    graph = create_icrl(ScriptedModel(lambda: "42"), lambda: 0.5, rounds=3)
    graph.compile().invoke({"task": "?"})
    assert _held(graph) == 0

    def fail(messages: Any) -> str:
        raise KeyboardInterrupt

    graph = create_icrl(RunnableLambda(fail), lambda: 0.5, rounds=3)
    with pytest.raises(KeyboardInterrupt):
        graph.compile().invoke({"task": "?"})
    assert _held(graph) == 0


def test_only_the_latest_runs_are_remembered() -> None:
    run_cache = RunCache(limit=2)
    for run in "abc":
        run_cache.put(run, 0, run)
    run_cache.put("b", 0, "again")
    run_cache.put("d", 0, "d")
    assert [run_cache.get(run, 0) for run in "abcd"] == [None, "again", None, "d"]


def test_runs_side_by_side_do_not_mix() -> None:
    """200 in one event loop, and eight in threads."""
    prompts: list[list[Message]] = []

    async def say(messages: list[Message]) -> str:
        prompts.append(messages)
        await asyncio.sleep(0)
        return f"{messages[0]['content'].split()[0]} {len(messages)}"

    def say_now(messages: list[Message]) -> str:
        prompts.append(messages)
        return f"{messages[0]['content'].split()[0]} {len(messages)}"

    async def score() -> float:
        return 0.5

    graph: Any = create_icrl(RunnableLambda(say_now, afunc=say), score, rounds=3).compile()

    async def all_of_them() -> None:
        await asyncio.gather(*(graph.ainvoke({"task": f"task{number} ?"}) for number in range(200)))

    asyncio.run(all_of_them())
    workers = [threading.Thread(target=graph.invoke, args=({"task": f"task{number} ?"},)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(prompts) == 3 * 208
    for prompt in prompts:
        name = prompt[0]["content"].split()[0]
        answers = [message["content"] for message in prompt if message["role"] == "assistant"]
        assert answers == [f"{name} {2 * i + 1}" for i in range(len(answers))]


def test_the_history_is_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[Episode] = []

    def spy(prompt: Any, episode: Episode, style: Style) -> None:
        added.append(episode)
        turn(prompt, episode, style)

    turn = add_turn
    monkeypatch.setattr(growing, "add_turn", spy)
    play(create_icrl(ScriptedModel(lambda: "42"), lambda: 0.5, rounds=30), GAME)
    assert len(added) == 29
    assert turns is LAYOUTS["turns"]
