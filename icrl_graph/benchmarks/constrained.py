"""Local language models whose answers to word games are constrained to the words offered, by a grammar.

Named as any player that is a function: `--model icrl_graph.benchmarks.constrained:icrl_smollm2`. A model that was not
trained on these games says something else than an answer most of the time; constrained, it can be compared.
"""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

from langchain_core.messages import AIMessage

from icrl_graph.models.registry import load_model
from icrl_graph.prompts.layouts import parse
from icrl_graph.tasks.word_games.references import Messages, game_of
from icrl_graph.tasks.word_games.wordings import Game


def smollm2(messages: Messages, rng: Random, temperature: float | None) -> AIMessage:
    """`local:smollm2`, constrained."""
    return _answer("local:smollm2", messages, rng, temperature)


def icrl_smollm2(messages: Messages, rng: Random, temperature: float | None) -> AIMessage:
    """`local:icrl-smollm2`, constrained."""
    return _answer("local:icrl-smollm2", messages, rng, temperature)


def grammar(game: Game) -> str:
    """A grammar (GBNF) of the answers to a game: as many of its words as an answer has, with commas between them."""
    answer = ' ", " '.join(game.length * ["word"])
    words = " | ".join(f'"{word}"' for word in game.options)
    return f'root ::= " "? {answer}\nword ::= {words}'


def _answer(name: str, messages: Messages, rng: Random, temperature: float | None) -> AIMessage:
    options: Any = {} if temperature is None else {"temperature": temperature}
    body = {"grammar": grammar(game_of(parse(messages)))}
    answer: AIMessage = _model(name).invoke(messages, seed=rng.getrandbits(31), extra_body=body, **options)
    return answer


@cache
def _model(name: str) -> Any:
    return load_model(name)
