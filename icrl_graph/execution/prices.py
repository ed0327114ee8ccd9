"""What tokens cost: by the user's own prices, else by those that the extra `prices` (genai-prices) knows, offline.

An unknown price is None, never 0. Where a reply has tokens and no price, it is counted as unpriced, so that a sum of
dollars that lacks something can be told from one that does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from typing_extensions import TypedDict

from icrl_graph.state.episode import Usage


class Price(TypedDict, total=False):
    """US dollars for a million tokens."""

    input: float
    cached: float
    """Of input tokens that the provider's prompt cache served; by default as `input`."""
    output: float


Prices = Mapping[str, Price]
"""By the model's name."""


def cost(model: str, usage: Usage, own: Prices) -> float | None:
    """What some usage of a model costs in US dollars; None if its price is unknown.

    Args:
        model: its name, such as "gpt-4.1-mini".
        usage: tokens in (the cached ones included) and out.
        own: the user's own prices, which go ahead of all others.
    """
    read, cached, written = usage.get("input", 0), usage.get("cached", 0), usage.get("output", 0)
    if name := _named(model, own):
        price = own[name]
        paid = (read - cached) * price["input"] + cached * price.get("cached", price["input"])
        return (paid + written * price["output"]) / 1e6
    try:
        from genai_prices import Usage as Tokens
        from genai_prices import calc_price
    except ImportError:
        return None
    try:
        tokens = Tokens(input_tokens=read, cache_read_tokens=min(cached, read), output_tokens=written)
        return float(calc_price(tokens, model).total_price)
    except LookupError:
        return None


def _named(model: str, own: Prices) -> str | None:
    """The name under which a model's price stands; providers add a version to the names that they are asked for."""
    fitting = [name for name in own if re.fullmatch(rf"{re.escape(name)}(-latest|-[\d-]+)?", model)]
    return max(fitting, key=len) if fitting else None


def check_price(model: str, own: Prices) -> None:
    """Raise if the price of a model is unknown.

    Raises:
        ValueError: it is; says how to give it.
    """
    if cost(model, Usage(input=1, output=1), own) is None:
        raise ValueError(
            f"max_usd needs the price of {model!r}, and it is unknown: give prices={{{model!r}: {{'input': ..., "
            "'output': ...}} in US dollars for a million tokens, or install 'icrl-graph[prices]', which knows many "
            "models"
        )


def are_prices(given: object) -> bool:
    """Whether these are prices: by model name, with numbers of at least 0 for input and output."""
    if not isinstance(given, Mapping):
        return False
    return all(
        isinstance(name, str)
        and isinstance(price, Mapping)
        and {"input", "output"} <= set(price) <= {"input", "cached", "output"}
        and all(isinstance(usd, int | float) and usd >= 0 for usd in price.values())
        for name, price in given.items()
    )
