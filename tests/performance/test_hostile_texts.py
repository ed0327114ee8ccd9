"""Whatever reads what a model has written takes time in proportion to its length, whatever stands in it."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from icrl_graph.environments.rollouts import _read_action
from icrl_graph.evaluators.judge import read_score, read_verdict
from icrl_graph.models.responses import read_response
from icrl_graph.prompts.layouts import parse
from icrl_graph.prompts.text import block, unescape
from icrl_graph.tasks.game24.verifier import read_steps, verify
from icrl_graph.tasks.hidden_color import read_color
from icrl_graph.tasks.writing.verifier import endings
from tests.performance.lab import record

READERS: dict[str, Callable[[str], Any]] = {
    "read_score": lambda text: read_score(text, 10),
    "read_verdict": lambda text: read_verdict(text, {"sure": 1.0}),
    "read_response": read_response,
    "an action": lambda text: _read_action(text, thoughts=True),
    "an answer to Game of 24": lambda text: verify(text, [4, 5, 6, 10]),
    "steps of Game of 24": lambda text: read_steps(text, [4, 5, 6, 10]),
    "a color": read_color,
    "endings": lambda text: endings(text, {"endings": ["The end."]}),
    "block and unescape": lambda text: unescape(block("attempt", text)),
    "a prompt in turns": lambda text: parse(
        [
            {"role": "user", "content": "Task"},
            {"role": "assistant", "content": text},
            {"role": "user", "content": f"Reward: 0.5\n{block('feedback', text)}"},
        ]
    ),
    "a prompt as a transcript": lambda text: parse(
        [{"role": "user", "content": f"{block('attempt', text)}\nReward: 0.5\n{block('feedback', text)}\n\nTask"}]
    ),
}
PIECES: tuple[str, ...] = (
    "_",
    " ",
    "-",
    "1",
    "a",
    "\\",
    "{",
    "(",
    ".",
    "\n",
    "* ",
    "_a",
    "a_",
    "1 ",
    "-1",
    "1.",
    " - ",
    "score ",
    "score 1",
)
PIECES += (
    "verdict: ",
    "sure ",
    ":",
    "<answer>",
    "</answer>",
    "<attempt>\n",
    "<",
    "<\\",
    "\\frac{",
    "\\boxed{",
    "answer:",
)
PIECES += (
    "action ",
    "action 1 ",
    "1 + 1 = 1 (left: ",
    "paragraph 1",
    "#",
    " -> ",
    "<instruction>\n",
    "\n\n<instruction>\n",
)
PIECES += ("`", "**", "$", "&=", "\n=", "\n{", "not ", ". ", "4*5+10-6 ", "\\boxed{1+1}")
SHORT, TIMES = 1500, 4


def _seconds(read: Callable[[str], Any], text: str) -> float:
    spent = []
    for _ in range(3):
        start = time.process_time()
        read(text)
        spent.append(time.process_time() - start)
    return min(spent)


@pytest.mark.parametrize("reader", READERS)
def test_no_text_takes_more_than_its_length_in_time(reader: str) -> None:
    read = READERS[reader]
    for piece in PIECES:
        for start, end in (("", ""), ("", "!x?1"), ("score ", "x"), ("action", "x"), ("verdict", "\u00e9")):
            short, long = (f"{start}{piece * (size // len(piece))}{end}" for size in (SHORT, SHORT * TIMES))
            before, after = _seconds(read, short), _seconds(read, long)
            if after > 0.005:  # below, a clock is too coarse
                assert after < 2.5 * TIMES * before, (piece, start, end, before, after)


@pytest.mark.parametrize("reader", ["an answer to Game of 24", "steps of Game of 24", "read_score", "read_verdict"])
def test_nor_does_a_text_of_100_000_characters(reader: str) -> None:
    read, worst = READERS[reader], 0.0
    for piece in ("1+1\n", "answer: 1+1 ", "(", "score: 1. sure. "):
        short, long = (piece * (size // len(piece)) for size in (10_000, 100_000))
        worst = max(worst, _seconds(read, long) / max(_seconds(read, short), 0.002))
    goal = 2.5 * 10
    record(
        f"time of {reader} for 100 000 characters over that for 10 000", f"<= {goal:g}x", f"{worst:.1f}x", worst <= goal
    )
    assert worst <= goal
