"""Stop rules: whether another attempt is worth its price, by the rewards so far.

Attempts are boxes that cost something to open, and the best one is kept: Pandora's box (Weitzman 1979), for language
models arXiv 2510.01394 and 2510.15945. The rule that is optimal there stops once the expected gain of one more attempt,
E[max(reward - best, 0)], is no more than its price. Departure from both papers: they fit a distribution (exponential,
normal) to the rewards of independent attempts; `expected_gain` fits none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from icrl_graph.state.choices import Number, Numbered, choices, find

StopRule = Callable[[Sequence[float | None], float | None, int], bool]
"""Whether to stop, by the rewards so far (None for an attempt without a score; one at least has one; after a switch the
best before it and those since), the highest that counts (the target, else the upper bound; None where neither is
known), and the paid calls that another attempt takes, its judgements included."""


def expected_gain(rewards: Sequence[float | None], highest: float) -> float:
    """By how much the next attempt is expected to raise the best reward, 0 or more.

    Of n + 1 rewards that come in any order alike, the last is the highest with probability 1 / (n + 1), whatever their
    distribution (Rényi 1962, on records); it is then taken to lie evenly between the best so far and the highest, so
    half of that is gained: (highest - best) / (2 (n + 1)). A method that learns gains more, later.

    Args:
        rewards: those so far, in any order; None for an attempt without a score, which has gained nothing. One at least
            has one.
        highest: the highest reward that counts.
    """
    top = max(value for value in rewards if value is not None)
    return max(0.0, highest - top) / (2 * (len(rewards) + 1))


def gain(price: float) -> StopRule:
    """Stop once the expected gain is no more than the price of its calls.

    Args:
        price: of one paid call, in units of reward, 0 or more.
    """

    def is_enough(rewards: Sequence[float | None], highest: float | None, calls: int) -> bool:
        return highest is not None and expected_gain(rewards, highest) <= price * calls

    return is_enough


PRICE = Number("PRICE", r"[0-9]{0,99}\.?[0-9]{1,99}(e-?[0-9]{1,2})?", float, "PRICE a reward from 0")
_NUMBERED: Numbered[StopRule] = {"gain": (gain, PRICE)}
STOP_RULES = choices((), _NUMBERED)


def stop_rule(spec: str, *, imports: bool = True) -> StopRule:
    """The stop rule of a name, such as "gain:0.01"; or a custom one.

    Raises:
        ValueError: there is no such rule, or its number is out of range; names the choices.
    """
    return find("stop", spec, {}, _NUMBERED, imports=imports)


def check_stops(
    stop: str | None, confirmations: int | None, target: float | None, bounds: tuple[float, float] | None
) -> None:
    """Raise ValueError if the highest reward that a stop rule needs, or the target to be confirmed, is not known."""
    highest = target if target is not None or bounds is None else bounds[1]
    if stop is not None and stop.startswith("gain:") and (highest is None or math.isinf(highest)):
        raise ValueError(f"stop={stop!r} needs the highest reward that counts: give target or bounds")
    if confirmations is not None and target is None:
        raise ValueError(f"confirmations={confirmations} are of attempts that reach the target: give target")
