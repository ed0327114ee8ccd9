"""What providers' prompt caches make of the prompts that are really sent, by the rules that they publish, simulated.

The bodies are taken from an HTTP server; four characters are a token. The rules are those of `models.prompt_cache`:

blocks      a prefix that was seen before is served from the cache, in whole blocks of 128 tokens, from 1024 on
OpenAI      GPT-5.6 and later: written up to each mark, found again only at a mark or, in implicit mode, at the end of
            a message
Anthropic   written up to each mark, found again at a mark or within 20 blocks before it

Under the latter two a token written costs 1.25, one read 0.1.
"""

from functools import cache
from itertools import accumulate
from random import Random
from typing import Any, NamedTuple

import pytest

from icrl_graph.models.registry import chat_model
from icrl_graph.state.reward import Reward
from icrl_graph.topologies.methods import create_icrl
from tests.bodies import BodyServer
from tests.helpers import play
from tests.performance.lab import record

ROUNDS = 50
TASK, RESPONSE, FEEDBACK = 1500, 500, 40
"""Tokens."""
LEAST, BLOCK = 1024, 128
WRITE, READ = 1.25, 0.1


def _words(tokens: int, seed: object) -> str:
    random = Random(str(seed))
    return " ".join(f"{random.randrange(1000):03d}" for _ in range(tokens))


@cache
def _bodies(layout: str, dialect: str) -> list[dict[str, Any]]:
    """What is sent in a run that shows all of its history."""
    with BodyServer(lambda messages: _words(RESPONSE, messages)) as server:
        model = chat_model("openai:any", base_url=server.base_url)

        def score(response: str) -> Reward:
            return Reward(value=0.5, feedback=_words(FEEDBACK, response))

        graph = create_icrl(model, score, rounds=ROUNDS, layout=layout, memory="all", cache=dialect)
        play(graph, {"task": _words(TASK, "task")})
    return server.bodies


class Block(NamedTuple):
    text: str
    marked: bool
    ends: bool
    """Whether its message ends with it."""


def _blocks(body: dict[str, Any]) -> list[Block]:
    blocks = []
    for message in body["messages"]:
        content = message["content"]
        parts = [{"text": content}] if isinstance(content, str) else content
        for at, part in enumerate(parts):
            marked = "prompt_cache_breakpoint" in part or "cache_control" in part
            blocks.append(Block(f"<{message['role']}>" * (at == 0) + part["text"], marked, part is parts[-1]))
    return blocks


def _total(body: dict[str, Any]) -> float:
    return sum(len(block.text) for block in _blocks(body)) / 4


def _served(bodies: list[dict[str, Any]]) -> float:
    """Tokens that a cache of blocks serves."""
    seen: set[int] = set()
    served = 0
    for body in bodies:
        text = "".join(block.text for block in _blocks(body))
        prefixes = [hash(text[:end]) for end in range(4 * BLOCK, len(text) + 1, 4 * BLOCK)]
        hits = next((i for i, prefix in enumerate(prefixes) if prefix not in seen), len(prefixes)) * BLOCK
        served += hits if hits >= LEAST else 0
        seen.update(prefixes)
    return served


def _paid(bodies: list[dict[str, Any]], rule: str) -> list[float]:
    """What the prompts cost where marks count, in tokens at full price."""
    written: set[tuple[str, ...]] = set()
    paid = []
    for body in bodies:
        blocks = _blocks(body)
        ends = [0, *accumulate(len(block.text) / 4 for block in blocks)]
        marks = [at + 1 for at, block in enumerate(blocks) if block.marked]
        places = list(marks)
        if rule == "anthropic":
            keys = [tuple(block.text for block in blocks[:at]) for at in range(len(blocks) + 1)]
            places = [at for mark in marks for at in range(max(1, mark - 19), mark + 1)]
        else:  # text is compared, however it is cut
            keys = [("".join(block.text for block in blocks[:at]),) for at in range(len(blocks) + 1)]
            if body.get("prompt_cache_options", {}).get("mode") != "explicit":
                marks = [*marks, len(blocks)]
                places = [at + 1 for at, block in enumerate(blocks) if block.marked or block.ends][-80:]
        assert len(marks) <= 4
        read = max((at for at in places if keys[at] in written), default=0)
        top = max(marks, default=0)
        if ends[top] < LEAST:
            read = top = 0
        written.update(keys[at] for at in marks if ends[at] >= LEAST)
        new = max(0.0, ends[top] - ends[read])
        paid.append(READ * ends[read] + WRITE * new + ends[-1] - ends[max(read, top)])
    return paid


def test_most_of_what_turns_send_comes_from_a_cache_of_blocks() -> None:
    bodies = _bodies("turns", "off")
    total, served = sum(map(_total, bodies)), _served(bodies)
    share, uncached = served / total, total - served
    *_, reply, outcome = bodies[-1]["messages"]
    new = TASK + ROUNDS * (len(reply["content"]) + len(outcome["content"])) / 4
    over_new = uncached / new
    record(f"input tokens from a prefix cache, {ROUNDS} rounds, turns", ">= 95 %", f"{share:.1%}", share >= 0.95)
    record("uncached tokens over what is new in them", "<= 1.15x", f"{over_new:.2f}x", over_new <= 1.15)
    assert share >= 0.95
    assert over_new <= 1.15


@pytest.mark.parametrize(("rule", "dialect"), [("GPT-5.6", "openai-marks"), ("anthropic", "anthropic")])
@pytest.mark.parametrize("layout", ["turns", "transcript"])
def test_marks_pay(layout: str, rule: str, dialect: str) -> None:
    bodies = _bodies(layout, dialect)
    paid, full = sum(_paid(bodies, rule)), sum(map(_total, bodies))
    over_none, over_implicit = paid / full, paid / sum(_paid(_bodies("transcript", "off"), "GPT-5.6"))
    figures = f"{over_none:.2f}x and {over_implicit:.2f}x ({paid / 1000:.0f}k tokens)"
    goal = "<= 1x of no cache, <= 0.2x of one message unmarked"
    met = over_none <= 1 and over_implicit <= 0.2
    record(f"input paid for, {ROUNDS} rounds, {layout}, {rule}'s rules", goal, figures, met)
    assert over_none <= 1
    assert over_implicit <= 0.2
