"""What tokens cost: by custom prices, else by those that the extra `prices` (genai-prices) knows, offline.

An unknown price is None, never 0. A reply with tokens and no price is counted as unpriced, so that an incomplete sum of
dollars can be distinguished from a complete one.
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
"""By model name."""


def cost(model: str, usage: Usage, custom_prices: Prices) -> float | None:
    """What some usage of a model costs in US dollars; None if its price is unknown.

    Args:
        model: its name, such as "gpt-4.1-mini".
        usage: tokens in (the cached ones included) and out.
        custom_prices: the user's prices, which take precedence over all others.
    """
    input, cached, output = usage.get("input", 0), usage.get("cached", 0), usage.get("output", 0)
    if name := _priced_name(model, custom_prices):
        price = custom_prices[name]
        input_cost = (input - cached) * price["input"] + cached * price.get("cached", price["input"])
        return (input_cost + output * price["output"]) / 1e6
    try:
        from genai_prices import Usage as Tokens
        from genai_prices import calc_price
    except ImportError:
        return None
    try:
        tokens = Tokens(input_tokens=input, cache_read_tokens=min(cached, input), output_tokens=output)
        return float(calc_price(tokens, model).total_price)
    except LookupError:
        return None


def _priced_name(model: str, prices: Prices) -> str | None:
    """The name under which a model's price is listed; providers add a version to the name that was requested."""
    fitting = [name for name in prices if re.fullmatch(rf"{re.escape(name)}(-latest|-[\d-]+)?", model)]
    return max(fitting, key=len) if fitting else None


def check_price(model: str, custom_prices: Prices) -> None:
    """Raise if the price of a model is unknown.

    Raises:
        ValueError: it is; says how to set it.
    """
    if cost(model, Usage(input=1, output=1), custom_prices) is None:
        raise ValueError(
            f"max_usd needs the price of {model!r}, and it is unknown: give prices={{{model!r}: {{'input': ..., "
            "'output': ...}} in US dollars for a million tokens, or install 'icrl-graph[prices]', which knows many "
            "models"
        )


def are_prices(value: object) -> bool:
    """Whether a value holds prices: by model name, with numbers of at least 0 for input and output."""
    if not isinstance(value, Mapping):
        return False
    return all(
        isinstance(name, str)
        and isinstance(price, Mapping)
        and {"input", "output"} <= set(price) <= {"input", "cached", "output"}
        and all(isinstance(usd, int | float) and usd >= 0 for usd in price.values())
        for name, price in value.items()
    )
