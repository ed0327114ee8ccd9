"""What tokens cost: by custom prices, else by those that the extra `prices` (genai-prices) knows, offline.

An unknown price is None, never 0. Where a reply has tokens and no price, it is counted as unpriced, so that a sum of
dollars that lacks something can be distinguished from one that does not.
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


def cost(model: str, usage: Usage, custom: Prices) -> float | None:
    """What some usage of a model costs in US dollars; None if its price is unknown.

    Args:
        model: its name, such as "gpt-4.1-mini".
        usage: tokens in (the cached ones included) and out.
        custom: custom prices, which take precedence.
    """
    read, cached, written = usage.get("input", 0), usage.get("cached", 0), usage.get("output", 0)
    if name := _named(model, custom):
        price = custom[name]
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


def _named(model: str, custom: Prices) -> str | None:
    """The name under which a model's price stands; providers add a version to the name in a request."""
    fitting = [name for name in custom if re.fullmatch(rf"{re.escape(name)}(-latest|-[\d-]+)?", model)]
    return max(fitting, key=len) if fitting else None


def check_price(model: str, custom: Prices) -> None:
    """Raise if the price of a model is unknown.

    Raises:
        ValueError: it is; says how to give it.
    """
    if cost(model, Usage(input=1, output=1), custom) is None:
        raise ValueError(
            f"max_usd needs the price of {model!r}, and it is unknown: give prices={{{model!r}: {{'input': ..., "
            "'output': ...}} in US dollars for a million tokens, or install 'icrl-graph[prices]', which knows many "
            "models"
        )


def are_prices(prices: object) -> bool:
    """Whether these are prices: by model name, with numbers of at least 0 for input and output."""
    if not isinstance(prices, Mapping):
        return False
    return all(
        isinstance(name, str)
        and isinstance(price, Mapping)
        and {"input", "output"} <= set(price) <= {"input", "cached", "output"}
        and all(isinstance(usd, int | float) and usd >= 0 for usd in price.values())
        for name, price in prices.items()
    )
