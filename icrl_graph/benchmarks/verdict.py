"""What a comparison shows, in words made of its intervals and tests: which method, by how much, how sure, at what cost.

Nothing is said to be better, or to learn, that its corrected test does not show; what may mislead is said by name: a
reward that is gamed, task data that leaks, the luckiest of several arms, an arm whose rewards are chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from typing_extensions import TypedDict

from icrl_graph.benchmarks.arms import controls_of, makes_independent_attempts, sees_rewards
from icrl_graph.benchmarks.statistics import Bracket, Difference
from icrl_graph.benchmarks.summary import RISE, Method, Pair, Summary, amount, is_known
from icrl_graph.state.episode import add_usage
from icrl_graph.state.formatting import MISSING, apart, between, cost, listed, number, score, signed

ALPHA = 0.05
"""A corrected p below it is taken for a difference."""
MOSTLY = 0.5
"""The share of repeated answers from which an arm is said to copy."""
NODES = {"generate": "attempts", "evaluate": "judging", "reflect": "reflections", "select": "choosing the answer"}


class Verdict(TypedDict):
    """Sentences, by what they answer."""

    registered: list[str]
    """What was claimed before it was run, and what has come of that; empty where nothing was."""
    best: list[str]
    """Which method, by how much, and how sure that is."""
    learning: list[str]
    """Which methods get better within a run, and whether by their rewards."""
    money: list[str]
    """Where the money went, and what a solved task has cost."""
    against: list[str]
    """What speaks against it."""


HEADINGS: Mapping[str, str] = {
    "registered": "What was claimed?",
    "best": "Which method?",
    "learning": "Does it learn?",
    "money": "What did it cost?",
    "against": "What speaks against it?",
}


def verdict(summary: Summary, registered: Sequence[str] = ()) -> Verdict:
    """What a comparison shows.

    Args:
        summary: its figures.
        registered: what was claimed before it was run, and what has come of that, as sentences.
    """
    return Verdict(
        registered=list(registered),
        best=list(_best(summary)),
        learning=list(_learning(summary)),
        money=list(_money(summary)),
        against=list(_against(summary)) or ["Nothing that is looked for here: " + _LOOKED_FOR],
    )


_LOOKED_FOR = (
    "a reward that rises without its metric, task data in feedback, a control that gets better, copied answers, "
    "a lead that chance explains, and answers without a score."
)


def is_shown(difference: Difference) -> bool:
    """Whether a corrected test shows a difference."""
    return difference["adjusted"] is not None and difference["adjusted"] < ALPHA


# ------------------------------------------------------------------------------------------------------- which method?


def _best(summary: Summary) -> Iterator[str]:
    measure, methods = summary["measures"][0], {method["arm"]: method for method in summary["methods"]}
    first, pairs = summary["methods"][0], _pairs_of(summary, measure)
    has = f"{_noun(measure)} of {{}} over {summary['tasks']} tasks, within {summary['equal_calls']} calls each"
    if not pairs:
        value = between(first["equal"][measure], score)
        yield f"{first['arm']} has a {has.format(value)}. It was compared with nothing."
        return
    better = [pair for pair in pairs if is_shown(pair) and _middle(pair) > 0]
    worse = [pair for pair in pairs if is_shown(pair) and _middle(pair) < 0]
    if better:
        top = methods[max(better, key=_middle)["arm"]]
        yield f"{top['arm']} is best: a {has.format(between(top['equal'][measure], score))}. {_than(better, 'more')}"
        if len(better) > 1:
            yield "These were not tested against each other."
    elif worse:
        yield f"{first['arm']} has a {has.format(between(first['equal'][measure], score))}. {_than(worse, 'less')}"
    else:
        highest = max(_middle(method["equal"][measure]) for method in methods.values())
        tops = [method for method in methods.values() if _middle(method["equal"][measure]) == highest]
        names = "all are alike" if 1 < len(tops) == len(methods) else f"{_are([top['arm'] for top in tops])} highest"
        values = listed(list(dict.fromkeys(between(top["equal"][measure], score) for top in tops)))
        yield (
            f"No method is shown to differ from {first['arm']} by {_noun(measure)}: {names}, with a "
            f"{has.format(values)}."
        )
    for other in summary["measures"][1:]:
        for way, sign in (("more", 1), ("less", -1)):
            if shown := [pair for pair in _pairs_of(summary, other) if is_shown(pair) and sign * _middle(pair) > 0]:
                yield f"By {other}, {_than(shown, way)}"
    if unsure := [pair for pair in pairs if not is_shown(pair)]:
        told = "; ".join(f"{pair['arm']} {_size(pair)}" for pair in unsure)
        yield f"Not shown to differ from {first['arm']}: {told}."


def _are(names: Sequence[str]) -> str:
    return f"{listed(names)} {'are' if len(names) > 1 else 'is'}"


def _than(pairs: Sequence[Pair], way: str) -> str:
    """That arms have more, or less, than the one they were compared with."""
    told = listed([f"{pair['arm']} ({_size(pair)})" for pair in pairs])
    return f"{told} {'have' if len(pairs) > 1 else 'has'} {way} than {pairs[0]['against']}."


def _size(difference: Difference) -> str:
    """A difference with its interval and its p."""
    ends = "" if difference["low"] is None else f" [{signed(difference['low'])} {signed(difference['high'])}]"
    return f"{apart(difference)}{ends}, p {_p(difference['adjusted'])}"


def _p(p: float | None) -> str:
    return MISSING if p is None else "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def _noun(measure: str) -> str:
    return "share of tasks solved" if measure == "success" else measure


def _middle(figure: Mapping[str, Any]) -> float:
    """A mean or a difference; the middle of what it can be, where some is unscored."""
    if figure.get("lowest") is not None:
        return float(figure["lowest"] + figure["highest"]) / 2
    value = figure["difference"] if "difference" in figure else figure["mean"]
    return float("-inf") if value is None else float(value)


def _pairs_of(summary: Summary, measure: str) -> list[Pair]:
    return [pair for pair in summary["pairs"] if pair["measure"] == measure]


# ------------------------------------------------------------------------------------------------------ does it learn?


def _learning(summary: Summary) -> Iterator[str]:
    arms = [method["arm"] for method in summary["methods"]]
    noise: list[str] = []
    untold: list[str] = []
    for method in summary["methods"]:
        arm, rise = method["arm"], method["rise"]
        if not sees_rewards(arm):
            continue
        if rise is None:
            untold.append(arm)
        elif not rise["tasks"]:
            yield f"{arm}: not told. It has no run of two attempts that are scored."
        elif not is_shown(rise):
            noise.append(f"{arm} {_size(rise)}")
        elif _middle(rise) < 0:
            yield f"{arm} gets worse within a run: the last half of its attempts is rewarded {_size(rise)}."
        else:
            yield (
                f"{arm} gets better within a run: the last half of its attempts is rewarded {_size(rise)}. "
                + " ".join(_by_rewards(arm, controls_of(arm, arms), summary["learning"]))
            )
    if untold:
        yield (
            f"{', '.join(untold)}: not told. Runs end by their rewards, so that the last attempt is the best one also "
            "where all is chance; without target, patience and stop it would be."
        )
    if noise:
        yield (
            "Nothing but noise is shown in how rewards change within a run, last half of the attempts less first half: "
            f"{'; '.join(noise)}."
        )


def _by_rewards(arm: str, controls: Sequence[str], pairs: Sequence[Pair]) -> Iterator[str]:
    """Whether an arm learns by its rewards: it must rise more than what lacks them."""
    found = {}
    for pair in pairs:
        if pair["measure"] == RISE and arm in (pair["arm"], pair["against"]):
            other = pair["against"] if pair["arm"] == arm else pair["arm"]
            found[other] = pair if pair["arm"] == arm else _turned(pair)
    known = {control: found[control] for control in controls if control in found}
    if not known:
        yield "No arm without its rewards or its history was played, so that may be owed to something else."
    more = {control: pair for control, pair in known.items() if is_shown(pair) and _middle(pair) > 0}
    if more:
        yield f"It rises more than {listed([f'{control} ({_size(pair)})' for control, pair in more.items()])}."
    if rest := {control: pair for control, pair in known.items() if control not in more}:
        told = listed([f"{control} ({_size(pair)})" for control, pair in rest.items()])
        yield f"It is not shown to rise more than {told}, so its rewards are not shown to be what helps."


def _turned(pair: Pair) -> Pair:
    """A pair the other way about."""

    def minus(value: float | None) -> float | None:
        return None if value is None else -value + 0.0

    turned: Any = {
        **pair,
        "arm": pair["against"],
        "against": pair["arm"],
        "difference": minus(pair["difference"]),
        "low": minus(pair["high"]),
        "high": minus(pair["low"]),
    }
    if "lowest" in pair:
        turned |= {"lowest": minus(pair["highest"]), "highest": minus(pair["lowest"])}
    return cast(Pair, turned)


# --------------------------------------------------------------------------------------------------- what did it cost?


def _money(summary: Summary) -> Iterator[str]:
    methods, used = summary["methods"], [method["usage"] for method in summary["methods"]]
    unit = next((unit for unit in ("usd", "tokens") if all(is_known(each, unit) for each in used)), "calls")
    total = sum(amount(each, unit) for each in used)
    failed = ", runs that failed included" if any(method["failed"] for method in methods) else ""
    yield f"{cost(summary['usage'])} in all{failed}."
    if not total:
        return
    if len(methods) > 1:
        told = [f"{amount(each['usage'], unit) / total:.0%} {each['arm']}" for each in methods]
        yield f"Of the {_UNITS[unit]}: {', '.join(told)}."
    nodes = {node: amount(add_usage(*(m["spent_by"].get(node, {}) for m in methods)), unit) / total for node in NODES}
    if spent := [f"{share:.0%} {NODES[node]}" for node, share in nodes.items() if share > 0][:4]:
        yield f"By what for: {', '.join(spent)}." if len(spent) > 1 else f"All of it went into {NODES['generate']}."
    each = [f"{m['arm']} {_each(m['per_solved'][unit])}" for m in methods if unit in m["per_solved"]]
    if each:
        yield f"For each task solved, in {_UNITS[unit]}: {'; '.join(each)}."


def _each(spent: Bracket) -> str:
    """What was spent for each task solved."""
    return "solved none" if spent["mean"] is None and spent.get("lowest") is None else between(spent)


_UNITS = {"usd": "dollars", "tokens": "tokens", "calls": "calls"}


# --------------------------------------------------------------------------------------------- what speaks against it?


def _against(summary: Summary) -> Iterator[str]:
    for method in summary["methods"]:
        yield from _hack(method, summary["spans"])
        yield from _leak(method)
        yield from _copies(method)
    yield from _gamed_answers(summary)
    yield from _luck(summary)
    yield from _unscored(summary)
    if failed := sum(method["failed"] for method in summary["methods"]):
        yield f"{failed} runs failed and are in no figure."


def _hack(method: Method, spans: Mapping[str, float]) -> Iterator[str]:
    """A reward that rises, and a metric that does not: by less than half as much, each by how far it ranges."""
    rise, true = method["rise"], method["metric_rise"]
    if rise is None or true is None or not true["tasks"] or not (is_shown(rise) and _middle(rise) > 0):
        return
    told = f"{method['arm']}: within a run its reward rises by {_size(rise)}, and its metric"
    most = true["high"] if true["high"] is not None else _middle(true)
    is_apart = most / (spans["metric"] or 1.0) < _middle(rise) / (spans["reward"] or 1.0) / 2
    if is_shown(true) and _middle(true) < 0:
        yield f"{told} falls, {_size(true)}: the reward is gamed. Believe the metric."
    elif is_apart:
        yield f"{told} does not follow, {_size(true)}: the reward is gamed. Believe the metric."
    elif not is_shown(true):
        yield f"{told} is not shown to, {_size(true)}: these tasks are too few to tell whether the reward is gamed."


def _gamed_answers(summary: Summary) -> Iterator[str]:
    """Answers that are rewarded more than those of the first method, and measured to be worse."""
    rewards = {pair["arm"]: pair for pair in _pairs_of(summary, "reward")}
    for pair in _pairs_of(summary, "metric"):
        by_reward = rewards[pair["arm"]]
        if is_shown(pair) and is_shown(by_reward) and _middle(pair) * _middle(by_reward) < 0:
            yield (
                f"{pair['arm']} against {pair['against']}: the reward of the answers says {_size(by_reward)}, and the "
                f"metric the opposite, {_size(pair)}. Believe the metric."
            )


def _leak(method: Method) -> Iterator[str]:
    """What a method knows without its rewards."""
    arm, rise = method["arm"], method["rise"]
    if method["told"]:
        yield (
            f"{arm}: a leak. In {method['told']} of {method['runs']} runs the feedback holds task data, which is for "
            "the evaluator alone: a model may copy the answer from there."
        )
    if sees_rewards(arm) or rise is None or not (is_shown(rise) and _middle(rise) > 0):
        return
    if makes_independent_attempts(arm):
        yield (
            f"{arm}: a leak. No attempt sees an earlier one, yet the last half is rewarded {_size(rise)}: something "
            "else carries over, such as a server that remembers, or a model that was changed meanwhile."
        )
    else:
        yield (
            f"{arm}: no true reward is shown to it, yet it gets better within a run, {_size(rise)}: it learns from "
            "something else, such as its own judgement of what it sees, or a leak."
        )


def _copies(method: Method) -> Iterator[str]:
    """Answers that were given before: exploration is lost (arXiv 2604.05868)."""
    share = method["repeated"]
    if share["mean"] is not None and share["mean"] > MOSTLY:
        yield (
            f"{method['arm']} mostly repeats its answers: {between(share, score)} of its later attempts at a task "
            f"not solved yet repeat an earlier answer of the run; of its last ones {score(_last(method))} are new."
        )


def _last(method: Method) -> float | None:
    return next((point["mean"] for point in reversed(method["new"]) if point["mean"] is not None), None)


def _luck(summary: Summary) -> Iterator[str]:
    """A lead that the best of several has by chance."""
    pairs = _pairs_of(summary, summary["measures"][0])
    for pair in pairs:
        if _middle(pair) > 0 and pair["p"] is not None and pair["p"] < ALPHA and not is_shown(pair):
            yield (
                f"{pair['arm']} may be a lucky winner: alone, its lead over {pair['against']} would have p "
                f"{_p(pair['p'])}; but of {len(pairs)} that were compared the best often leads so by chance "
                f"(corrected p {_p(pair['adjusted'])}). Play it again on other tasks."
            )


def _unscored(summary: Summary) -> Iterator[str]:
    """What the answers without a score could change."""
    measure = summary["measures"][0]
    for pair in _pairs_of(summary, measure):
        if pair.get("lowest") is not None:
            yield (
                f"{pair['arm']} against {pair['against']}: what is unscored could make the difference anything from "
                f"{signed(pair['lowest'])} to {signed(pair['highest'])}."
            )
    for method in summary["methods"]:
        figure = method["equal"][measure]
        if figure.get("lowest") is not None:
            yield (
                f"{method['arm']}: {figure['of'] - figure['scored']} of {figure['of']} answers have no score; "
                f"with all of them at the lowest its {_noun(measure)} is {number(figure['lowest'])}, at the highest "
                f"{number(figure['highest'])}."
            )


def as_lines(told: Verdict) -> list[str]:
    """A verdict as lines of text, each with its heading."""
    return [f"{heading} {' '.join(told[part])}" for part, heading in HEADINGS.items() if told[part]]  # type: ignore[literal-required]
