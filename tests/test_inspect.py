"""Inspect, the real one: methods as its solvers, its limits, its scorers as evaluators, and what a log says of them."""

import asyncio
import gc
import importlib.util
import json
import logging
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from icrl_graph import aimprove, compare, improve
from icrl_graph.testing import OpenAIServer, ScriptedModel

if importlib.util.find_spec("inspect_ai") is None and not os.environ.get("CI"):
    pytest.skip("needs inspect-ai: the extra inspect", allow_module_level=True)

import inspect_ai
from inspect_ai import Task
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog, read_eval_log
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import Score, accuracy, choice, includes, match, model_graded_qa, scorer
from inspect_ai.solver import use_tools
from inspect_ai.tool import tool
from inspect_ai.util import registry_create, registry_info

from icrl_graph.integrations.inspect import best_of_n, from_scorer, icrl, reflexion, self_refine
from tests.command_line import icrl as run

pytestmark = pytest.mark.filterwarnings("ignore")  # what Inspect warns of is not ours

SOLVERS = {"icrl": icrl, "reflexion": reflexion, "self_refine": self_refine, "best_of_n": best_of_n}
FILE = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

@task
def sums():
    return Task(dataset=[Sample(input="6*7?", target="42")], solver=generate(), scorer=includes())
"""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Inspect's files in a folder of their own, and the root logger as it was."""
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "INSPECT_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "inspect"))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    yield
    root.handlers, root.level = handlers, level


@pytest.fixture(autouse=True, scope="module")
def swept() -> Iterator[None]:
    """Inspect leaves connections open; whoever comes next is not to be blamed."""
    yield
    with warnings.catch_warnings(action="ignore"):
        gc.collect()


def scripted(*answers: str) -> Callable[..., str]:
    """Gives the answers in turn, by how many attempts the prompt shows."""

    def reply(messages: list[dict[str, Any]]) -> str:
        attempts = [message for message in messages if message["role"] == "assistant"]
        return answers[len(attempts) % len(answers)]

    return reply


def play(solver: Any, server: OpenAIServer, tmp_path: Path, scorer: Any = None, **options: Any) -> EvalLog:
    samples = options.pop("samples", [Sample(input="6*7?", target="42")])
    task = Task(dataset=samples, solver=solver, scorer=scorer or includes())
    return evaluated(task, server, tmp_path, **options)


def evaluated(task: Any, server: OpenAIServer, tmp_path: Path, **options: Any) -> EvalLog:
    given: Any = {"model": "openai/any", "model_args": {"responses_api": False}, "model_base_url": server.base_url}
    logs: Any = {"display": "none", "log_dir": str(tmp_path / "logs"), "log_format": "eval"}
    (log,) = inspect_ai.eval(task, **given, **logs, **options)
    return read_eval_log(log.location)


def sample(log: EvalLog) -> Any:
    assert log.status == "success", log.error
    assert log.samples is not None
    return log.samples[0]


def tokens_of(usage: Any) -> tuple[int, int]:
    return usage["input"], usage["output"]


def spent_at(server: OpenAIServer) -> tuple[int, int]:
    read, written = (sum(each[f"{kind}_tokens"] for each in server.reported) for kind in ("prompt", "completion"))
    return read, written


def logged(log: EvalLog) -> tuple[int, int]:
    (usage,) = log.stats.model_usage.values()
    return usage.input_tokens, usage.output_tokens


def command(*arguments: str, server: OpenAIServer, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OPENAI_BASE_URL": server.base_url, "INSPECT_LOG_DIR": str(folder / "logs")}
    program = [sys.executable, "-m", "inspect_ai", *arguments]
    return subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def last_log(folder: Path) -> EvalLog:
    return read_eval_log(str(max((folder / "logs").glob("*.eval"), key=lambda path: path.stat().st_mtime)))


# ---------------------------------------------------------------------------------------------------- the command line


def test_any_task_is_played_by_name_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(FILE)
    with OpenAIServer(scripted("no", "it is 42", "41")) as server:
        done = command(
            *("eval", "task.py", "--model", "openai/any", "-M", "responses_api=false", "--display", "plain"),
            *("--solver", "icrl_graph/icrl", "-S", "rounds=3", "-S", "schedule=exploit"),
            server=server,
            folder=tmp_path,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is the one that was optimised" in " ".join(done.stdout.split())
    log = last_log(tmp_path)
    assert (log.eval.solver, log.eval.solver_args) == ("icrl_graph/icrl", {"rounds": 3, "schedule": "exploit"})
    told = sample(log).metadata["icrl"]
    assert told["usage"]["calls"] == server.counts["calls"] == 3
    assert tokens_of(told["usage"]) == spent_at(server) == logged(log)


@pytest.mark.parametrize("name", SOLVERS)
def test_each_method_has_a_name_in_inspect(name: str) -> None:
    size = {"n": 2} if name == "best_of_n" else {"rounds": 2}
    assert registry_info(registry_create("solver", f"icrl_graph/{name}", **size)).name == f"icrl_graph/{name}"


def test_a_wrong_setting_is_told_before_anything_is_paid(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(FILE)
    with OpenAIServer(scripted("42")) as server:
        done = command(
            *("eval", "task.py", "--model", "openai/any", "--display", "plain", "--solver", "icrl_graph/icrl"),
            *("-S", "turns=3"),
            server=server,
            folder=tmp_path,
        )
    assert done.returncode != 0
    assert "unknown argument 'turns'; choose among rounds" in " ".join((done.stdout + done.stderr).split())
    assert server.counts["calls"] == 0


@pytest.mark.parametrize("name", ["model", "topology"])
def test_what_inspect_itself_names_is_no_option(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name!r} is no option of the solver: --model names the model"):
        icrl(**{name: "openai/any"})


def test_the_start_of_inspect_is_held_up_by_nothing_heavy() -> None:
    program = (
        "import inspect_ai, inspect_ai.scorer, inspect_ai.solver, sys; before = set(sys.modules);"
        "import icrl_graph.integrations.inspect;"
        "print({name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'icrl_graph'}"


# ------------------------------------------------------------------------------------------------------ what a log says


@pytest.mark.parametrize("name", SOLVERS)
def test_what_a_method_tells_is_what_the_log_and_the_server_have_counted(name: str, tmp_path: Path) -> None:
    size = {"n": 3} if name == "best_of_n" else {"rounds": 3}
    with OpenAIServer(scripted("no", "it is 42", "41")) as server:
        log = play(SOLVERS[name](**size), server, tmp_path)
    told = sample(log).metadata["icrl"]
    assert told["usage"]["calls"] == server.counts["calls"]
    assert tokens_of(told["usage"]) == spent_at(server) == logged(log)
    assert told["stopped"] == "rounds"


def test_the_viewer_shows_settings_rounds_and_intermediate_scores(tmp_path: Path) -> None:
    with OpenAIServer(scripted("no", "it is 42", "41")) as server:
        shown = sample(play(icrl(rounds=3, schedule="exploit"), server, tmp_path))
    told = [event.data for event in shown.events if event.event == "info" and event.source == "icrl"]
    assert told[0]["settings"]["schedule"] == "exploit"
    rounds = [(each["round"], each["response"], each["reward"], each["best"]) for each in told[1:]]
    assert rounds == [(1, "no", 0, 0), (2, "it is 42", 1, 1), (3, "41", 0, 1)]
    scores = [(event.score.value, event.intermediate) for event in shown.events if event.event == "score"]
    assert scores == [("I", True), ("C", True), ("I", True), ("C", False)]


def test_the_best_answer_is_scored_and_its_run_is_told(tmp_path: Path) -> None:
    with OpenAIServer(scripted("no", "it is 42", "41")) as server:
        answered = sample(play(icrl(rounds=3), server, tmp_path))
    assert answered.output.completion == answered.messages[-1].text == "it is 42"
    assert [message.role for message in answered.messages] == ["user", "assistant"]
    assert answered.scores["includes"].value == "C"
    told = answered.metadata["icrl"]
    assert (told["reward"], told["stopped"], told["regret"], told["rounds_done"]) == (1, "rounds", 0, 3)


def test_samples_side_by_side_do_not_mix(tmp_path: Path) -> None:
    samples = [Sample(input=f"{number}?", target=f"<{number}>") for number in range(8)]
    with OpenAIServer(lambda messages: f"<{messages[0]['content'].partition('?')[0]}>", latency=0.05) as server:
        log = play(icrl(rounds=3, target=1.0), server, tmp_path, samples=samples)
    assert {(each.metadata["icrl"]["reward"], each.metadata["icrl"]["usage"]["calls"]) for each in log.samples} == {
        (1, 1)
    }
    assert all(each.output.completion == each.target for each in log.samples)


def test_choices_are_asked_for_and_marked_as_inspect_does(tmp_path: Path) -> None:
    samples = [Sample(input="6*7?", choices=["41", "42"], target="B")]
    with OpenAIServer(scripted("ANSWER: A", "ANSWER: B", "ANSWER: A")) as server:
        answered = sample(play(icrl(rounds=3), server, tmp_path, choice(), samples=samples))
    assert "A) 41\nB) 42" in server.prompts[0][0]["content"]
    assert (answered.output.completion, answered.scores["choice"].value) == ("ANSWER: B", "C")


# ------------------------------------------------------------------------------------------------------------- rewards


def test_another_scorer_may_give_the_reward_and_the_tasks_own_only_reports(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with OpenAIServer(scripted("42 it is", "it is 42")) as server:
        answered = sample(play(icrl(evaluator="match", rounds=2), server, tmp_path))
    assert (answered.output.completion, answered.metadata["icrl"]["evaluator"]) == ("it is 42", "inspect_ai/match")
    assert not [event for event in answered.events if event.event == "score" and event.intermediate]
    assert "optimised" not in caplog.text


def test_an_evaluator_of_ours_reads_target_and_metadata(tmp_path: Path) -> None:
    def length(response: str, task_data: dict[str, Any]) -> float:
        return -float(abs(len(response) - task_data["length"])) / len(task_data["target"])

    samples = [Sample(input="Say.", target="ab", metadata={"length": 3})]
    with OpenAIServer(scripted("a", "abc", "ab")) as server:
        answered = sample(play(icrl(evaluator=length, rounds=3), server, tmp_path, samples=samples))
    assert (answered.output.completion, answered.metadata["icrl"]["reward"]) == ("abc", 0)


def test_what_a_scorer_asks_a_model_counts(tmp_path: Path) -> None:
    def reply(messages: list[dict[str, Any]]) -> str:
        if "[Submission]" in messages[-1]["content"]:
            return "GRADE: C" if "42" in messages[-1]["content"].partition("[Submission]")[2][:20] else "GRADE: I"
        return scripted("no", "it is 42")(messages)

    with OpenAIServer(reply) as server:
        log = play(icrl(rounds=2, paid=True), server, tmp_path, model_graded_qa())
    told = sample(log).metadata["icrl"]
    assert (told["reward"], told["usage"]["calls"], server.counts["calls"]) == (1, 4, 5)  # the last is the final score
    del server.reported[-1]
    assert tokens_of(told["usage"]) == spent_at(server)


def test_the_model_reads_an_explanation_only_if_it_is_to(tmp_path: Path) -> None:
    for feedback in (False, True):
        with OpenAIServer(scripted("no", "it is 42")) as server:
            play(icrl(rounds=2, feedback=feedback), server, tmp_path, explained())
        assert ("target is 42" in str(server.prompts)) is feedback


@scorer(metrics=[accuracy()])  # type: ignore[untyped-decorator, unused-ignore]
def explained() -> Any:
    async def judge(state: Any, target: Any) -> Score:
        return Score(value=target.text in state.output.completion, explanation=f"The target is {target.text}.")

    return judge


@scorer(metrics=[accuracy()])  # type: ignore[untyped-decorator, unused-ignore]
def giving(value: Any) -> Any:
    async def judge(state: Any, target: Any) -> Score:
        return Score(value=value)

    return judge


@pytest.mark.parametrize(
    ("value", "reward"),
    [("C", 1), ("I", 0), ("P", 0.5), ("N", 0), (True, 1), (0.25, 0.25), ("0.25", 0.25), ("yes", 1), ("No", 0)],
)
def test_a_score_is_the_number_that_inspect_reads_in_it(value: Any, reward: float) -> None:
    (given,) = improve("t", from_scorer(giving(value)), model=lambda: "a", rounds=1, task_data={"target": ""}).rewards
    assert given == reward


@pytest.mark.parametrize("value", ["maybe", {"a": 1}, [1, 2], float("nan")])
def test_a_score_that_is_no_number_is_no_reward(value: Any) -> None:
    result = improve("t", from_scorer(giving(value)), model=lambda: "a", rounds=1, task_data={"target": ""})
    assert result.rewards == [None]
    assert result.episodes[0]["reward"]["error"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_scorer_is_an_evaluator_outside_of_any_eval(is_async: bool) -> None:
    call: Any = {"model": ScriptedModel(["no", "42", "41"]), "rounds": 3, "task_data": {"target": "42"}}
    result = (
        asyncio.run(aimprove("6*7?", from_scorer(match()), **call))
        if is_async
        else improve("6*7?", from_scorer(match()), **call)
    )
    assert (result.answer, result.rewards) == ("42", [0, 1, 0])


@pytest.mark.parametrize(
    ("data", "told"), [({}, "there is none"), ({"answer": "42"}, "there is none"), ({"target": 42}, "it is 42")]
)
def test_a_scorer_without_a_target_is_told_before_anything_is_paid(data: dict[str, Any], told: str) -> None:
    model = ScriptedModel(["wrong"])
    with pytest.raises(ValueError, match=r"from task_data\['target'\], but " + told):
        improve("6*7?", from_scorer(includes()), model=model, rounds=1, task_data=data)
    assert model.prompts == []


@pytest.mark.parametrize("is_async", [False, True])
def test_a_paid_scorer_is_counted_outside_of_any_eval(is_async: bool) -> None:
    def grade(messages: Any, *rest: Any) -> ModelOutput:
        output = ModelOutput.from_content("mockllm/model", "GRADE: C")
        output.usage = ModelUsage(input_tokens=10, output_tokens=2, total_tokens=12)
        return output

    judge = from_scorer(model_graded_qa(model=get_model("mockllm/model", custom_outputs=grade)), paid=True)
    call: Any = {"model": lambda: "42", "rounds": 2, "task_data": {"target": "42"}}
    result = asyncio.run(aimprove("t", judge, **call)) if is_async else improve("t", judge, **call)
    assert (result.rewards, tokens_of(result.usage), result.usage["calls"]) == ([1, 1], (20, 4), 4)
    assert result.rewarded_by == "judged"


def test_what_is_no_scorer_is_told() -> None:
    with pytest.raises(ValueError, match="no scorer"):
        from_scorer(icrl(evaluator="match"))


def test_an_unknown_evaluator_is_told_with_the_choices() -> None:
    with pytest.raises(ValueError, match="unknown evaluator 'matches'; choose one of mathematics"):
        icrl(evaluator="matches")


# -------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("limit", "type"), [({"token_limit": 260}, "token"), ({"message_limit": 6}, "message"), ({"turn_limit": 2}, "turn")]
)
@pytest.mark.parametrize("answers", [("it is 42", "no"), ("no", "it is 42")])
def test_a_limit_of_inspect_ends_a_run_as_a_limit_with_the_best_answer_so_far(
    limit: dict[str, int], type: str, answers: tuple[str, ...], tmp_path: Path
) -> None:
    with OpenAIServer(scripted(*answers, "no", "no", "no", "no")) as server:
        log = play(icrl(rounds=6), server, tmp_path, **limit)
    ended = sample(log)
    assert ended.limit is not None
    assert ended.limit.type == type
    assert [event.type for event in ended.events if event.event == "sample_limit"] == [type]
    assert (ended.output.completion, ended.scores["includes"].value) == ("it is 42", "C")
    told = ended.metadata["icrl"]
    assert (told["stopped"], told["reward"]) == (f"{type} limit", 1)
    assert tokens_of(told["usage"]) == spent_at(server) == logged(log)
    assert server.counts["calls"] < 6


def test_a_limit_of_time_ends_a_run_as_a_limit_and_stops_paying(tmp_path: Path) -> None:
    with OpenAIServer(scripted("it is 42"), faults={2: "hang"}) as server:
        ended = sample(play(icrl(rounds=6), server, tmp_path, time_limit=6))
        calls = server.counts["calls"]
    assert (ended.limit.type, ended.output.completion, calls) == ("time", "it is 42", 2)
    assert ended.metadata["icrl"]["stopped"] == "cancelled"


def test_a_limit_before_anything_is_judged_leaves_an_answer(tmp_path: Path) -> None:
    with OpenAIServer(lambda messages: "it is 42" if len(server.prompts) == 1 else "no") as server:
        ended = sample(play(best_of_n(n=4), server, tmp_path, token_limit=12))
    assert ended.limit.type == "token"
    assert ended.output.completion in ("it is 42", "no")
    assert ended.metadata["icrl"]["reward"] is None


def test_a_prompt_that_is_too_long_is_made_shorter(tmp_path: Path) -> None:
    with OpenAIServer(lambda messages: "word " * 60, context=300) as server:
        played = sample(play(icrl(rounds=6), server, tmp_path))
    assert server.counts["overflow"] > 0
    assert played.metadata["icrl"]["rounds_done"] == 6
    assert played.output.completion.startswith("word word")


@scorer(metrics=[accuracy()])  # type: ignore[untyped-decorator, unused-ignore]
def silent() -> Any:
    async def judge(state: Any, target: Any) -> Score | None:
        return None

    return judge


def test_a_scorer_that_gives_nothing_leaves_attempts_unscored(tmp_path: Path) -> None:
    with OpenAIServer(scripted("42")) as server:
        played = sample(play(icrl(rounds=2), server, tmp_path, scorer=silent()))
    assert (played.metadata["icrl"]["reward"], played.metadata["icrl"]["rounds_done"]) == (None, 2)
    assert server.counts["calls"] == 2


@pytest.mark.parametrize("solver", [icrl(max_calls=1), icrl(rounds=1), reflexion(max_failures=1), best_of_n(n=2)])
def test_an_outage_is_an_error_of_the_sample_and_no_wrong_answer(solver: Any, tmp_path: Path) -> None:
    with OpenAIServer(scripted("42"), faults=dict.fromkeys(range(1, 99), "500")) as server:
        log = play(solver, server, tmp_path, max_retries=0, fail_on_error=False)
    (played,) = log.samples or []
    assert played.scores is None or not played.scores
    assert "no attempt was answered: InternalServerError: Error code: 500" in played.error.message


def test_a_sample_that_an_outage_ended_is_played_again_by_eval_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("task.py").write_text(FILE)
    faults: Any = dict.fromkeys(range(1, 99), "500")
    with OpenAIServer(scripted("it is 42"), faults=faults) as server:
        log = evaluated("task.py@sums", server, tmp_path, solver=icrl(rounds=1), max_retries=0)
        assert log.status == "error"
        faults.clear()
        (log,) = inspect_ai.eval_retry(log.location, display="none", log_dir=str(tmp_path))
    assert sample(log).metadata["icrl"]["reward"] == 1


def test_a_model_that_replies_with_nothing_is_scored_as_with_inspects_own_solver(tmp_path: Path) -> None:
    with OpenAIServer(scripted("")) as server:
        played = sample(play(icrl(rounds=2), server, tmp_path))
    assert (played.error, played.scores["includes"].value) == (None, "I")


def test_a_limit_in_an_outage_is_a_limit(tmp_path: Path) -> None:
    with OpenAIServer(scripted("42"), faults=dict.fromkeys(range(1, 99), "hang")) as server:
        played = sample(play(icrl(rounds=2), server, tmp_path, time_limit=1))
    assert (played.error, played.limit.type) == (None, "time")


@pytest.mark.parametrize("solver", [icrl, best_of_n])
def test_an_evaluator_that_only_fails_is_an_error_of_the_sample(solver: Any, tmp_path: Path) -> None:
    def judge(response: str) -> float:
        raise RuntimeError("the sandbox is down")

    with OpenAIServer(scripted("42")) as server:
        log = play(solver(evaluator=judge), server, tmp_path, fail_on_error=False)
        assert "no attempt was scored: RuntimeError: the sandbox is down" in log.samples[0].error.message
        meant = sample(play(solver(evaluator=judge, on_error="unscored"), server, tmp_path))
    assert (meant.error, meant.scores["includes"].value, meant.metadata["icrl"]["reward"]) == (None, "C", None)


def test_a_task_without_a_scorer_is_told(tmp_path: Path) -> None:
    with OpenAIServer(scripted("42")) as server:
        log = evaluated(Task(dataset=[Sample(input="6*7?")], solver=icrl(rounds=6)), server, tmp_path)
    assert log.status == "error"
    assert "no scorer" in log.error.message
    assert server.counts["calls"] <= 1


def test_tools_of_a_task_are_not_offered_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    @tool  # type: ignore[untyped-decorator, unused-ignore]
    def add() -> Any:
        async def execute(x: int, y: int) -> int:
            """Add.

            Args:
                x: a number.
                y: a number.
            """
            return x + y

        return execute

    with OpenAIServer(scripted("42")) as server:
        play([use_tools(add()), icrl(rounds=1)], server, tmp_path)
    assert "offers the model none of the tools" in caplog.text


# ---------------------------------------------------------------------------------------------------- again, and caches


def test_a_retried_eval_finds_what_was_paid_in_inspects_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("task.py").write_text(FILE)
    with OpenAIServer(scripted("no", "41", "it is 42"), faults={3: "401"}) as server:
        log = evaluated("task.py@sums", server, tmp_path, solver=icrl(rounds=3), cache=True)
        assert (log.status, server.counts["calls"]) == ("error", 3)
        (log,) = inspect_ai.eval_retry(log.location, display="none", log_dir=str(tmp_path))
    assert server.counts["calls"] == 4
    told, last = sample(log).metadata["icrl"], server.reported[-1]
    assert (told["reward"], tokens_of(told["usage"])) == (1, (last["prompt_tokens"], last["completion_tokens"]))


def test_attempts_that_are_asked_for_alike_are_attempts_of_their_own_with_inspects_cache_too(tmp_path: Path) -> None:
    with OpenAIServer(lambda messages: f"{len(server.prompts)}") as server:
        play(best_of_n(n=3), server, tmp_path, cache=True)
    assert server.counts["calls"] == 3


# ------------------------------------------------------------------------------------------------ logs of a comparison


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[Path]]:
    """A comparison, the answers to one of whose tasks are unscored, and its logs."""
    folder = tmp_path_factory.mktemp("compared")
    (folder / "parts.py").write_text(PARTS)
    played = compare(
        f"{folder / 'parts.py'}:benchmark",
        ["icrl", "best_of_n"],
        model=f"{folder / 'parts.py'}:model",
        folder=folder / "runs",
        rounds=2,
        seeds=2,
    )
    done = run("export", str(folder / "runs"), "--to", "inspect", "--out", str(folder / "logs"), "--json")
    return played, [Path(path) for path in json.loads(done.stdout)]


PARTS = """
from icrl_graph.benchmarks.benchmark import Benchmark

def model(messages):
    return "a" * (1 + len(messages))

def score(response, task_data):
    return None if task_data["n"] == 1 else len(response) / 10

def read(item):
    return {"task": f"Write {item}.", "task_data": {"n": int(item)}}

benchmark = Benchmark(about="letters", read=read, items=lambda: ["0", "1", "2"], evaluator=score)
"""


def test_a_comparison_is_exported_as_logs_that_inspect_reads(exported: tuple[Any, list[Path]]) -> None:
    comparison, paths = exported
    assert [path.name for path in paths] == ["icrl.eval", "best_of_n.eval"]
    for path, arm in zip(paths, ("icrl", "best_of_n"), strict=True):
        log = read_eval_log(str(path))
        rows = {(cell.item, cell.seed + 1): row for cell, row in comparison.rows.items() if cell.arm == arm}
        assert log.samples is not None
        assert {(each.id, each.epoch): each.output.completion for each in log.samples} == {
            cell: row["answer"] for cell, row in rows.items()
        }
        (reward,) = log.results.scores
        scored = [row["reward"] for row in rows.values() if row["reward"] is not None]
        assert reward.metrics["mean"].value == pytest.approx(sum(scored) / len(scored))
        assert (reward.scored_samples, reward.unscored_samples) == (4, 2)


def test_an_exported_run_shows_its_attempts_and_what_is_unscored_is_no_number(
    exported: tuple[Any, list[Path]],
) -> None:
    _, (path, _) = exported
    samples = {(each.id, each.epoch): each for each in read_eval_log(str(path)).samples or []}
    shown = samples["0", 1]
    told = [(event.data["round"], event.data["response"]) for event in shown.events if event.event == "info"]
    rewards = [event.score.value for event in shown.events if event.event == "score"]
    assert (told, rewards) == ([(1, "aa"), (2, "aaaa")], [0.2, 0.4])
    assert (shown.scores["reward"].value, shown.metadata["icrl"]["stopped"]) == (0.4, "rounds")
    assert math.isnan(samples["1", 1].scores["reward"].value)


def test_inspects_own_commands_read_an_exported_log(exported: tuple[Any, list[Path]]) -> None:
    _, (path, _) = exported
    commands = (["log", "dump", str(path)], ["log", "list", "--json", "--log-dir", str(path.parent)])
    dumped, listed = (
        subprocess.run([sys.executable, "-m", "inspect_ai", *each], capture_output=True, text=True, check=True).stdout
        for each in commands
    )
    assert json.loads(dumped)["eval"]["solver"] == "icrl"
    assert {Path(each["name"]).name for each in json.loads(listed)} == {"icrl.eval", "best_of_n.eval"}


def test_an_unknown_form_is_told_with_the_choices(exported: tuple[Any, list[Path]]) -> None:
    _, (path, _) = exported
    done = run("export", str(path.parents[1] / "runs"), "--to", "csv", "--out", str(path.parent))
    assert done.returncode != 0
    assert "unknown form 'csv'; choose one of 'alpaca-eval', 'inspect'" in done.stderr
