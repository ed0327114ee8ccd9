"""What tokens cost: by custom prices, else nothing on this machine, else what the extra `prices` knows, offline.

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
    written: float
    """Of input tokens that the provider has put into its cache; by default 1.25 times `input`, as with Anthropic and
    GPT-5.6."""
    written_1h: float
    """Of those that it keeps for an hour; by default twice `input`, as with Anthropic."""
    output: float


Prices = Mapping[str, Price]
"""By model name."""
LOCAL = "local:"
"""Ahead of the name of a model that runs on this machine, which costs nothing."""


def cost(model: str, usage: Usage, custom_prices: Prices) -> float | None:
    """What some usage of a model costs in US dollars; None if its price is unknown.

    Args:
        model: its name, such as "gpt-4.1-mini".
        usage: tokens in (those from and into the cache included) and out.
        custom_prices: the user's prices, which take precedence over all others.
    """
    cached, output, hour = usage.get("cached", 0), usage.get("output", 0), usage.get("written_1h", 0)
    written = max(usage.get("written", 0), hour)
    input = max(usage.get("input", 0), cached + written)  # some servers don't count them in
    if name := _priced_name(model, custom_prices):
        price = custom_prices[name]
        plain = price["input"]
        input_cost = (input - cached - written) * plain + cached * price.get("cached", plain)
        input_cost += (written - hour) * price.get("written", 1.25 * plain) + hour * price.get("written_1h", 2 * plain)
        return (input_cost + output * price["output"]) / 1e6
    if model.startswith(LOCAL):
        return 0.0
    try:
        from genai_prices import Usage as Tokens
        from genai_prices import calc_price
    except ImportError:
        return None
    try:
        tokens = Tokens(
            input_tokens=input,
            cache_read_tokens=cached,
            cache_write_tokens=written,
            output_tokens=output,
            **({"cache_write_1h_tokens": hour} if hour else {}),
        )
        return float(calc_price(tokens, model).total_price)
    except LookupError:
        return None


def _priced_name(model: str, prices: Prices) -> str | None:
    """The name under which a model's price is listed; providers add a date to the name that was requested."""
    if model in prices:
        return model
    undated = _DATED.sub("", model)
    return undated if undated in prices else None


_MONTH, _DAY = "(0[1-9]|1[0-2])", "(0[1-9]|[12][0-9]|3[01])"
_DATED = re.compile(rf"(-latest|[-@]20[0-9]{{2}}(-?){_MONTH}\2{_DAY}|-{_MONTH}{_DAY}|-2[0-9]{_MONTH})\Z")
"""What may stand after a name, as in -2025-04-14, -20250414, @20250414, -0414, -2504: -5 is another model."""


def check_price(model: str, custom_prices: Prices, cap: str = "max_usd") -> None:
    """Raise if the price of a model is unknown.

    Raises:
        ValueError: it is; says how to set it.
    """
    if cost(model, Usage(input=1, output=1), custom_prices) is None:
        raise ValueError(
            f"{cap} needs the price of {model!r}, and it is unknown: give prices={{{model!r}: {{'input': ..., "
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
        and {"input", "output"} <= set(price) <= Price.__annotations__.keys()
        and all(isinstance(usd, int | float) and usd >= 0 for usd in price.values())
        for name, price in value.items()
    )
