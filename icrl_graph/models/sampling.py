"""Which sampling parameters a chat model takes: else a misspelt one is found out in the first call, or never."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from langchain_core.language_models import BaseChatModel

from icrl_graph.models.structured import uses_responses_api
from icrl_graph.state.choices import name_of_part, unbound

USUAL = (
    *("temperature", "top_p", "top_k", "min_p", "max_tokens", "stop", "stop_sequences", "seed", "frequency_penalty"),
    *("presence_penalty", "repeat_penalty", "repetition_penalty", "logit_bias", "logprobs", "top_logprobs"),
    *("reasoning_effort", "response_format", "extra_body", "extra_headers", "timeout"),
)
"""Parameters by the names that most providers have for them."""


def check_sampling(model: Any, names: Iterable[Any]) -> None:
    """Raise if a model does not take a sampling parameter.

    Of a model of OpenAI's protocol all parameters are known. Others, and functions, which ignore most, may take more
    than their class says: of them a name is refused that is nearly one of those that are known.

    Args:
        model: a chat model.
        names: of the parameters.

    Raises:
        ValueError: it does not; names the choices.
    """
    part = unbound(model)
    accepted = _of_openai(part)
    known = accepted or sorted({*USUAL, *_fields(part)})
    for name in names:
        near = get_close_matches(str(name), known, 1, 0.85)
        if name not in known and (accepted or near or not isinstance(name, str)):
            mean = f"did you mean {near[0]!r}? " if near else ""
            own = ", fields of a server's own under 'extra_body'" if accepted else ""
            raise ValueError(
                f"unknown sampling parameter {name!r} for {name_of_part(part)}; {mean}choose among "
                f"{', '.join(known)}{own}"
            )


def _of_openai(model: Any) -> list[str]:
    """The parameters of a request to a model of OpenAI's protocol; none for any other."""
    if not any(kind.__module__.startswith("langchain_openai.") for kind in type(model).__mro__):
        return []
    from openai.resources.chat.completions import Completions
    from openai.resources.responses import Responses

    protocols: list[Any] = [Completions.create, *([Responses.create] if uses_responses_api(model) else [])]
    names = [name for create in protocols for name in inspect.signature(create).parameters]
    return sorted({*names} - {"self", "messages", "input", "model", "stream"})


def _fields(model: Any) -> Iterable[str]:
    """The fields of a model's class that not all have, under all their names."""
    for name, field in type(model).model_fields.items():
        if name not in BaseChatModel.model_fields:
            yield from filter(None, (name, field.alias))
