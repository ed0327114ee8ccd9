"""Episodes of many turns: nested in every topology, durable step by step, rebuilt by replay."""

import asyncio
from typing import Any

import numpy as np
import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphDrained
from langgraph.graph import START, StateGraph
from langgraph.runtime import RunControl, get_runtime
from typing_extensions import TypedDict

from icrl_graph.api import improve
from icrl_graph.environments import EnvironmentFailed, EnvironmentLost, Outcome, ReplayDivergence
from icrl_graph.environments.rollouts import _read_action, episode_return, rollout
from icrl_graph.evaluators.judge import llm_judge
from icrl_graph.preview import preview
from icrl_graph.prompts.ablations import shuffled
from icrl_graph.state.episode import Input
from icrl_graph.state.reward import Reward
from icrl_graph.testing import ScriptedModel
from icrl_graph.topologies.methods import create_best_of_n, create_icrl, create_reflexion, create_self_refine
from icrl_graph.topologies.revision import revise
from tests.corridor import Corridor
from tests.helpers import play, thread, without_cost

TASK: Any = {"task": "Find the treasure.", "task_data": {"length": 2}}


def _says(*actions: str) -> ScriptedModel:
    return ScriptedModel(list(actions))


def test_an_episode_is_played_to_its_end_and_its_return_is_the_reward() -> None:
    model = _says("right", "jump", "right")
    output, (episode,) = play(create_icrl(rollout(model, Corridor), episode_return, rounds=1), TASK)
    assert [step["action"] for step in episode["steps"]] == ["right", "jump", "right"]
    assert episode["response"] == (
        "right -> You are in room 1.\njump -> No known action matches that input.\nright -> A treasure!"
    )
    assert episode["reward"] == {"value": pytest.approx(1.1), "steps": [0.1, 0.0, 1.0]}
    assert episode["steps"][-1]["info"] == {"at": 2}
    assert output["usage"]["calls"] == 3


def test_the_current_episode_reaches_the_model_as_chat_turns_with_the_reward_of_each_step() -> None:
    model = _says("right", "right")
    play(create_icrl(rollout(model, Corridor), episode_return, rounds=1), TASK)
    first, second = model.prompts
    assert first[-1]["content"].endswith("\n\nYou are in room 0.")
    assert second == [
        *first,
        {"role": "assistant", "content": "right"},
        {"role": "user", "content": "You are in room 1.\nReward: 0.1"},
    ]


@pytest.mark.parametrize("layout", ["turns", "transcript"])
def test_earlier_episodes_are_lines_with_rewards_never_the_models_turns(layout: str) -> None:
    model = _says("left", "left", "right", "right")
    play(create_icrl(rollout(model, Corridor), episode_return, rounds=2, layout=layout), TASK)
    prompt = model.prompts[2]
    told = "<attempt>\nleft -> You are in room -1. (Reward: 0)\nleft -> A trap! (Reward: -1)\n</attempt>\nReward: -1"
    assert told in prompt[0]["content"]
    assert [message["role"] for message in prompt] == ["user"]


@pytest.mark.parametrize("show", ["zero", "hidden"])
def test_an_ablation_changes_the_rewards_of_the_current_episode_too(show: str) -> None:
    model = _says("right", "right", "right", "right")
    play(create_icrl(rollout(model, Corridor), episode_return, rounds=2, show=show), TASK)
    told = repr(model.prompts)
    assert "0.1" not in told
    assert ("Reward: 0" in told) == (show == "zero")


def test_thoughts_before_an_action_are_saved() -> None:
    model = _says("I go right.\nAction: right", "Action: right")
    _, (episode,) = play(create_icrl(rollout(model, Corridor, thoughts=True), episode_return, rounds=1), TASK)
    assert [(step.get("thought"), step["action"]) for step in episode["steps"]] == [
        ("I go right.", "right"),
        (None, "right"),
    ]
    assert model.prompts[1][-2]["content"] == "I go right.\nAction: right"


def test_an_episode_ends_after_so_many_steps() -> None:
    _, (episode,) = play(create_icrl(rollout(_says("x", "y"), Corridor, max_steps=2), episode_return, rounds=1), TASK)
    assert len(episode["steps"]) == 2
    assert episode["reward"]["value"] == 0.0


@pytest.mark.parametrize("create", [create_icrl, create_reflexion, create_self_refine, create_best_of_n])
@pytest.mark.parametrize("is_async", [False, True])
def test_every_method_plays_and_environments_serve_one_episode_after_another(create: Any, is_async: bool) -> None:
    made: list[Corridor] = []

    def make() -> Corridor:
        made.append(Corridor())
        return made[-1]

    model = ScriptedModel(lambda: "right")
    size: Any = {"n": 3} if create is create_best_of_n else {"rounds": 3}
    others = {"reflector": lambda: "well"} if create is create_reflexion else {}
    others |= {"critic": lambda: "well"} if create is create_self_refine else {}
    graph = create(rollout(model, make), episode_return, **size, **others).compile(checkpointer=InMemorySaver())
    out = asyncio.run(graph.ainvoke(TASK, thread())) if is_async else graph.invoke(TASK, thread())
    assert out["reward"] == pytest.approx(1.1)
    assert len(made) == 1 or create is create_best_of_n
    assert sum(each.log.count("reset") for each in made) == 3


@pytest.mark.parametrize("create", [create_reflexion, create_self_refine])
def test_the_acting_model_writes_the_reflections_by_default(create: Any) -> None:
    model = _says("right", "left", "Go on to the right.", "right", "right", "Well done.")
    _, (first, _) = play(create(rollout(model, Corridor, max_steps=2), episode_return, rounds=2), TASK)
    assert first["reflection"] == "Go on to the right."
    assert "<attempt>\nright -> You are in room 1." in model.prompts[2][0]["content"]
    assert "<reflection>\nGo on to the right." in model.prompts[3][0]["content"]


def test_a_preview_counts_the_turns_of_episodes_and_one_call_for_each_reflection() -> None:
    policy = rollout(lambda: "right", Corridor, max_steps=15)
    assert preview(TASK["task"], episode_return, model=policy, rounds=3)["calls"] == 45
    assert preview(TASK["task"], episode_return, model=policy, rounds=3, topology="reflexion")["calls"] == 47
    assert preview(TASK["task"], episode_return, model=policy, n=3, topology="best_of_n")["calls"] == 45


def test_an_actor_that_judges_itself_is_self_judged() -> None:
    actor = _says("right", "right")
    graph = create_icrl(rollout(actor, Corridor), llm_judge(actor, "Was it quick?"))
    assert graph.parts.rewarded_by() == "self-judged"


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_an_interrupted_run_resumes_at_the_exact_step_in_a_fresh_environment(at: int) -> None:
    log: list[str] = []
    asked = iter(range(1, 100))

    def act() -> Any:
        if next(asked) == at:
            raise KeyboardInterrupt
        return "right"

    model = ScriptedModel(act)
    graph = create_icrl(rollout(model, lambda: Corridor(log)), episode_return, rounds=2).compile(InMemorySaver())
    with pytest.raises(KeyboardInterrupt):
        graph.invoke(TASK, thread(), durability="sync")
    out = graph.invoke(None, thread(), durability="sync")
    episodes = graph.get_state(thread()).values["episodes"]
    _, whole = play(create_icrl(rollout(lambda: "right", Corridor), episode_return, rounds=2), TASK)
    assert without_cost(episodes) == without_cost(whole)
    assert out["usage"]["calls"] == 4
    assert len(model.prompts) == 5  # one was in flight


def test_an_environment_that_dies_is_replaced_and_brought_to_the_same_point() -> None:
    log: list[str] = []
    model = _says("right", "jump", "right")
    _, (episode,) = play(create_icrl(rollout(model, lambda: Corridor(log, 3)), episode_return, rounds=1), TASK)
    assert episode["reward"]["value"] == pytest.approx(1.1)
    assert log == ["reset", "right", "jump", "right", "reset", "right", "jump", "right"]


def test_an_environment_that_dies_of_an_action_each_time_ends_the_run_which_can_be_resumed() -> None:
    class Fragile(Corridor):
        def step(self, action: str) -> Any:
            if action == "jump" and not mended:
                raise EnvironmentLost("it died")
            return super().step(action)

    mended: list[bool] = []
    model = _says("right", "jump", "right")
    graph = create_icrl(rollout(model, Fragile), episode_return, rounds=1).compile(InMemorySaver())
    with pytest.raises(EnvironmentLost):
        graph.invoke(TASK, thread(), durability="sync")
    mended.append(True)
    assert graph.invoke(None, thread())["reward"] == pytest.approx(1.1)
    assert len(model.prompts) == 3


def test_replay_divergence_names_the_step_and_both_observations() -> None:
    class Moody(Corridor):
        def step(self, action: str) -> Any:
            outcome = super().step(action)
            return outcome._replace(observation=f"{outcome.observation} {len(log)}")

    log: list[str] = []
    with pytest.raises(ReplayDivergence, match=r"step 1 gave 'You are in room 1. 5' and not 'You are in room 1. 2'"):
        play(create_icrl(rollout(_says("right", "jump"), lambda: Moody(log, 2)), episode_return, rounds=1), TASK)


class _Forgetful(Corridor):
    """Dies of the third action that is done in all its lives, and tells its rooms otherwise in each life."""

    def step(self, action: str) -> Any:
        outcome = super().step(action)
        return outcome._replace(observation=f"{outcome.observation} Life {self.log.count('reset')}.")


def test_an_episode_that_diverges_in_replay_is_restarted_if_set_and_all_calls_are_counted() -> None:
    log: list[str] = []
    model = _says("right", "jump", "right", "right", "right")
    policy = rollout(model, lambda: _Forgetful(log, 3), on_divergence="restart")
    output, (episode,) = play(create_icrl(policy, episode_return, rounds=1), TASK)
    told = ["right -> You are in room 1. Life 3.", "right -> A treasure! Life 3."]
    assert episode["response"] == "\n".join(told)
    assert output["usage"]["calls"] == len(model.prompts) == 5
    assert "Life 1" not in repr(model.prompts[3:])


def test_an_episode_that_always_diverges_is_restarted_three_times_and_then_raises() -> None:
    class Hopeless(_Forgetful):
        def step(self, action: str) -> Any:
            if action == "jump" and not dead:
                dead.append(True)
                raise EnvironmentLost("it died")
            dead.clear()
            return super().step(action)

    dead: list[bool] = []
    log: list[str] = []
    model = _says(*["right", "jump"] * 9)
    policy = rollout(model, lambda: Hopeless(log), on_divergence="restart")
    with pytest.raises(ReplayDivergence):
        play(create_icrl(policy, episode_return, rounds=1), TASK)
    assert len(model.prompts) == 8


def test_a_prompt_that_overflows_the_context_is_shrunk_within_an_episode_and_stays_so() -> None:
    def act(messages: Any) -> str:
        prompts.append(messages)
        if repr(messages).count("<attempt>") > 1:
            raise ValueError("maximum context length exceeded")
        return "right"

    prompts: list[Any] = []
    model = ScriptedModel(lambda messages: act(messages))
    _, episodes = play(create_icrl(rollout(model, Corridor), episode_return, rounds=4), TASK)
    assert [len(episode["steps"]) for episode in episodes] == [2, 2, 2, 2]
    assert [episode["plan"]["left_out"] for episode in episodes] == [0, 0, 1, 2]


@pytest.mark.parametrize(("refused", "steps"), [(lambda count: count > 1, [2, 2, 2, 2]), (lambda count: True, [0, 0])])
def test_a_prompt_that_is_refused_for_an_unknown_reason_is_shrunk_once_within_an_episode(
    refused: Any, steps: list[int]
) -> None:
    class Refused(Exception):
        status_code = 422

    def act(messages: Any) -> str:
        if refused(repr(messages).count("<attempt>")):
            raise Refused("no")
        return "right"

    model = ScriptedModel(act)
    _, episodes = play(create_icrl(rollout(model, Corridor), episode_return, rounds=len(steps)), TASK)
    assert [len(episode.get("steps", [])) for episode in episodes] == steps
    assert [episode["plan"]["left_out"] for episode in episodes] == ([0, 0, 1, 2] if steps[0] else [0, 0])


def test_each_step_is_streamed_beside_the_episodes() -> None:
    graph = create_icrl(rollout(_says("right", "right"), Corridor), episode_return, rounds=1).compile()
    events: list[Any] = list(graph.stream(TASK, stream_mode="custom"))
    assert [event["type"] for event in events] == ["round", "step", "step", "response", "episode", "done"]
    _, first, second, *_ = events
    assert [(step["step"], step["action"], step["reward"]) for step in (first, second)] == [
        (0, "right", 0.1),
        (1, "right", 1.0),
    ]
    assert (second["done"], second["info"]) == (True, {"at": 2})


def test_is_episode_leaves_out_the_events_of_steps() -> None:
    heard: list[Any] = []
    policy = rollout(_says("right", "right"), Corridor)
    improve(**TASK, score=episode_return, model=policy, rounds=1, on_episode=heard.append)
    assert [event["type"] for event in heard] == ["episode"]


@pytest.mark.parametrize(
    ("said", "done"),
    [
        ("I go.\nAction: right\nObservation: A treasure!\nAction: left", "right"),
        ("**Action:** right", "right"),
        ("action:\nright", "right"),
        ("right", "right"),
    ],
)
def test_of_what_a_model_says_the_first_action_is_done_and_nothing_that_it_imagines(said: str, done: str) -> None:
    model = _says(said, "right")
    _, (episode,) = play(create_icrl(rollout(model, Corridor, thoughts=True), episode_return, rounds=1), TASK)
    assert episode["steps"][0]["action"] == done


@pytest.mark.parametrize("thoughts", [False, True])
def test_a_prompt_says_how_to_answer(thoughts: bool) -> None:
    model = _says("Action: right", "Action: right")
    play(create_icrl(rollout(model, Corridor, thoughts=thoughts), episode_return, rounds=1), TASK)
    assert ("think first" in model.prompts[0][-1]["content"]) == thoughts
    assert ("one action and nothing else" in model.prompts[0][-1]["content"]) != thoughts


@pytest.mark.parametrize("is_async", [False, True])
def test_a_budget_of_calls_holds_for_episodes_side_by_side(is_async: bool) -> None:
    model = ScriptedModel(lambda: "jump")
    graph = create_best_of_n(rollout(model, Corridor, max_steps=10), episode_return, n=6, max_calls=12).compile()
    output = asyncio.run(graph.ainvoke(TASK)) if is_async else graph.invoke(TASK)
    assert len(model.prompts) == output["usage"]["calls"] <= 12


def test_what_an_interrupted_episode_had_paid_counts_for_the_budget_when_it_is_resumed() -> None:
    class Falling(Corridor):
        def step(self, action: str) -> Any:
            if len(model.prompts) == 4 and not mended:
                raise EnvironmentLost("it fell")
            return super().step(action)

    mended: list[bool] = []
    model = ScriptedModel(lambda: "jump")
    graph = create_icrl(rollout(model, Falling, max_steps=20), episode_return, rounds=1, max_calls=6).compile(
        InMemorySaver()
    )
    with pytest.raises(EnvironmentLost):
        graph.invoke(TASK, thread(), durability="sync")
    mended.append(True)
    fresh: Any = create_icrl(rollout(model, Falling, max_steps=20), episode_return, rounds=1, max_calls=6)
    output = fresh.compile(graph.checkpointer).invoke(None, thread(), durability="sync")
    assert (output["stopped"], output["usage"]["calls"], len(model.prompts)) == ("calls", 6, 6)


def test_rewards_of_a_shorter_episode_leave_later_steps_without_one() -> None:
    pool = [Reward(value=0.5, steps=[0.25])]
    model = _says("jump", "jump", "right", "right")
    policy = rollout(model, Corridor)
    _, (episode,) = play(create_icrl(policy, episode_return, rounds=1, show=shuffled(pool)), TASK)
    assert len(episode["steps"]) == 4
    assert [message["content"].count("Reward") for message in model.prompts[3] if message["role"] == "user"] == [
        0,
        1,
        0,
        0,
    ]


class _Wrong(Corridor):
    """Gives something at its second action that no environment may."""

    gives: Any = None

    def step(self, action: str) -> Any:
        outcome = super().step(action)
        if len([each for each in self.log if each != "reset"]) == 2 and not mended:
            if isinstance(self.gives, Exception):
                raise self.gives
            return self.gives if not isinstance(self.gives, dict) else outcome._replace(**self.gives)
        return outcome


mended: list[bool] = []


@pytest.mark.parametrize(
    "gives",
    [
        ValueError("no such thing"),
        OSError("gone"),
        ("You win.", 1.0),
        {"reward": None},
        {"reward": float("nan")},
        {"observation": 3},
        {"info": {"x": float("inf")}},
    ],
    ids=repr,
)
def test_an_environment_that_fails_ends_the_run_which_is_resumed_once_it_is_fixed(
    gives: Any,
) -> None:
    mended.clear()
    log: list[str] = []

    def make() -> _Wrong:
        made = _Wrong(log)
        made.gives = gives
        return made

    model = _says("jump", "jump", "right", "right")
    graph = create_icrl(rollout(model, make), episode_return, rounds=1).compile(InMemorySaver())
    with pytest.raises(EnvironmentFailed):
        graph.invoke(TASK, thread(), durability="sync")
    mended.append(True)
    output = graph.invoke(None, thread(), durability="sync")
    assert (output["reward"], output["usage"]["calls"], len(model.prompts)) == (pytest.approx(1.1), 4, 4)


def test_an_environment_that_has_failed_serves_no_other_episode() -> None:
    made: list[Any] = []

    def make() -> Any:
        made.append(_Wrong())
        made[-1].gives = OSError("broken for good")
        return made[-1]

    mended.clear()
    policy = rollout(lambda: "jump", make, max_steps=2)
    for _ in range(2):
        with pytest.raises(EnvironmentFailed):
            play(create_icrl(policy, episode_return, rounds=1), TASK)
    assert len(made) == 2


def test_a_round_that_is_played_again_in_a_branch_has_the_budget_that_was_left_then() -> None:
    model = ScriptedModel(lambda: "jump")
    built = create_icrl(rollout(model, Corridor, max_steps=3), episode_return, rounds=2, max_calls=8, seed=1)
    graph = built.compile(InMemorySaver(), interrupt_after=["evaluate"])
    graph.invoke(TASK, thread())
    graph.invoke(None, thread())
    graph.invoke(None, revise(graph, thread(), 0, reward=0.5))
    second = graph.get_state(thread()).values["episodes"][1]
    assert len(second["steps"]) == 3
    assert "response" in second


def test_numpys_numbers_and_truth_values_are_fine() -> None:
    class Numpy(Corridor):
        def step(self, action: str) -> Any:
            o: Any = super().step(action)
            return o._replace(reward=np.float32(o.reward), done=np.bool_(o.done), success=np.bool_(o.success))

    graph = create_icrl(rollout(_says("right", "right"), Numpy), episode_return, rounds=1).compile(InMemorySaver())
    assert graph.invoke(TASK, thread())["reward"] == pytest.approx(1.1)


def test_a_run_that_is_drained_between_two_steps_frees_its_slot() -> None:
    control = RunControl()

    def act() -> str:
        if not drained:
            drained.append(True)
            control.request_drain("enough")
        return "right"

    drained: list[bool] = []
    graph = create_icrl(rollout(act, Corridor, max_concurrency=1), episode_return, rounds=1).compile(InMemorySaver())
    with pytest.raises(GraphDrained):
        graph.invoke(TASK, thread("a"), control=control)
    assert graph.invoke(TASK, thread("b"))["reward"] == pytest.approx(1.1)
    assert graph.invoke(None, thread("a"))["reward"] == pytest.approx(1.1)


def test_an_agent_that_acts_gets_the_context_of_the_graph_around_it() -> None:
    class Seen(TypedDict):
        messages: list[Any]

    def answer(state: Seen) -> Any:
        seen.append(get_runtime().context)
        return {"messages": [AIMessage("right")]}

    seen: list[Any] = []
    agent: Any = StateGraph(Seen)
    agent.add_node("answer", answer)
    agent.add_edge(START, "answer")
    inner = create_icrl(rollout(agent.compile(), Corridor), episode_return, rounds=1).compile()
    parent: Any = StateGraph(Input)
    parent.add_node("icrl", inner)
    parent.add_edge(START, "icrl")
    who = object()  # no JSON, and no part of what a reply is known by
    parent.compile().invoke(TASK, context=who)
    assert seen == [who, who]


def test_a_memory_of_so_many_tokens_counts_what_is_told_of_an_episode_also_of_one_that_failed() -> None:
    class Talking(Corridor):
        def step(self, action: str) -> Any:
            return super().step(action)._replace(observation="word " * 400)

    model = ScriptedModel(["jump", "jump", RuntimeError("no")] * 6)
    policy = rollout(model, Talking, max_steps=3)
    play(create_icrl(policy, episode_return, rounds=6, memory="tokens:1500", max_failures=9), TASK)
    openings = [prompt for prompt in model.prompts if len(prompt) == 1]
    assert max(len(repr(prompt)) for prompt in openings) < 4 * 1500 + 5000


ACTIONS = [
    "Action 1: right",
    "Action:\n```\nright\n```",
    "Action:\n\n```text\nright\n```",
    "**Action: right**",
    "**Action:** **right**",
    "Action: `right`",
    "`Action: right`",
    "*Action: right*",
    "### Action: right",
    "> Action: right",
    "- Action: right",
    'Action: "right"',
    "Action: “right”",
    "Action：right",
    "动作：right",
    "I go. <action>right</action>",
    "<action>\nright\n</action>\nObservation: A treasure!",
    "`right`",
    "**right**",
    "> right",
    "- right",
    r"\boxed{right}",
    r"Action: \boxed{right}",
    "I was left of it before.\n\nNot \\boxed{left} again, so $\\boxed{right}$.",
]


def test_other_forms_of_an_action_are_read() -> None:
    assert [said for said in ACTIONS if _read_action(said, thoughts=True)["action"] != "right"] == []


@pytest.mark.parametrize(
    "action", ['say "yes" or "no"', "a * b", '"a" and "b"', "x**2", "go -n", "print('*')", "*", "2 > 1"]
)
def test_signs_within_an_action_stay(action: str) -> None:
    assert _read_action(f"Action: {action}", thoughts=True) == {"action": action}


def test_an_environment_that_can_not_even_be_closed_is_replaced() -> None:
    class Gone(Corridor):
        def close(self) -> None:
            raise OSError("already gone")

    log: list[str] = []
    policy = rollout(_says("right", "right"), lambda: Gone(log, 2))
    assert play(create_icrl(policy, episode_return, rounds=1), TASK)[0]["reward"] == pytest.approx(1.1)


def test_a_failed_call_ends_the_episode_which_stays_unscored_and_gives_its_environment_back() -> None:
    model = ScriptedModel(["right", RuntimeError("no"), "right", "right"])
    _, (first, second) = play(create_icrl(rollout(model, Corridor, max_concurrency=1), episode_return, rounds=2), TASK)
    assert (first["error"], first["reward"]["value"], len(first["steps"])) == ("RuntimeError: no", None, 1)
    assert second["reward"]["value"] == pytest.approx(1.1)


def test_a_budget_of_calls_holds_within_an_episode() -> None:
    model = ScriptedModel(lambda: "jump")
    output, _ = play(create_icrl(rollout(model, Corridor), episode_return, rounds=3, max_calls=4), TASK)
    assert (output["stopped"], len(model.prompts)) == ("calls", 4)


def test_max_concurrency_makes_episodes_wait_for_an_environment() -> None:
    made: list[Corridor] = []

    def make() -> Corridor:
        made.append(Corridor())
        return made[-1]

    graph = create_best_of_n(rollout(lambda: "right", make, max_concurrency=2), episode_return, n=6).compile()
    assert asyncio.run(graph.ainvoke(TASK))["usage"]["calls"] == 12
    assert len(made) <= 2
    assert sum(each.log.count("reset") for each in made) == 6


@pytest.mark.parametrize("how", ["cancelled", "interrupted"])
def test_an_interrupted_episode_frees_its_slot(how: str) -> None:
    begun = asyncio.Event()

    async def act(messages: Any) -> str:
        if begun.is_set():
            return "right"
        begun.set()
        if how == "interrupted":
            raise KeyboardInterrupt
        await asyncio.Event().wait()
        return "never"

    async def main() -> Any:
        graph = create_icrl(
            rollout(RunnableLambda(act), Corridor, max_concurrency=1), episode_return, rounds=1
        ).compile()
        running = asyncio.ensure_future(graph.ainvoke(TASK))
        await begun.wait()
        running.cancel()
        await asyncio.wait([running])
        return await asyncio.wait_for(graph.ainvoke(TASK), 20)

    if how == "interrupted":
        policy = rollout(RunnableLambda(act), Corridor, max_concurrency=1)
        graph = create_icrl(policy, episode_return, rounds=1).compile()
        with pytest.raises(KeyboardInterrupt):
            graph.invoke(TASK)
        assert graph.invoke(TASK)["reward"] == pytest.approx(1.1)
    else:
        assert asyncio.run(main())["reward"] == pytest.approx(1.1)


def test_a_hint_stands_with_the_latest_observation_only() -> None:
    class Helpful(Corridor):
        def step(self, action: str) -> Any:
            return super().step(action)._replace(hint="Valid: left, right")

        def reset(self, task_data: Any) -> Any:
            return Outcome(str(super().reset(task_data)), hint="Valid: right")

    model = _says("right", "jump", "right")
    play(create_icrl(rollout(model, Helpful), episode_return, rounds=1), TASK)
    first, second, third = model.prompts
    assert first[-1]["content"].endswith("You are in room 0.\n\nValid: right")
    assert [message["content"] for message in second[1:]] == [
        "right",
        "You are in room 1.\nReward: 0.1\n\nValid: left, right",
    ]
    assert repr(third).count("Valid") == 1


def test_the_steps_are_drawn_as_a_graph_within_the_node() -> None:
    drawn = create_icrl(rollout(lambda: "x", Corridor), episode_return).compile().get_graph(xray=True)
    assert {"generate:reset", "generate:act", "generate:step"} <= drawn.nodes.keys()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"max_steps": 0}, "max_steps"), ({"environment": 3}, "environment"), ({"on_divergence": "go"}, "on_divergence")],
)
def test_wrong_arguments_raise_at_once(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rollout(**{"model": lambda: "x", "environment": Corridor, **wrong})


class _Countdown:
    """An environment as Gymnasium has them: count down from a number that the seed gives."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.left = (seed or 0) + 2
        return self.left, {}

    def step(self, action: int) -> Any:
        self.left -= action
        return self.left, 1.0 if self.left == 0 else 0.0, self.left == 0, self.left < 0, {}

    def close(self) -> None: ...


def test_a_gymnasium_environment_is_wrapped_as_it_is() -> None:
    from icrl_graph.environments.gymnasium import FromGymnasium

    def make() -> FromGymnasium:
        return FromGymnasium(_Countdown(), describe=lambda left: f"{left} left", read=int)

    model = _says("1", "many", "2")
    _, (episode,) = play(
        create_icrl(rollout(model, make), episode_return, rounds=1), {"task": "Reach 0.", "task_data": {"seed": 1}}
    )
    assert [step["observation"] for step in episode["steps"]] == [
        "2 left",
        "invalid literal for int() with base 10: 'many'",
        "0 left",
    ]
    assert (episode["reward"]["value"], episode["steps"][-1]["success"]) == (1.0, True)
