"""In which words a game is told, and a game read back from its text.

Each family has wordings for training and further ones that are held out. What differs from game to game stands in
braces; all that a player has to know can be read off the text again (`read`), so that players that are functions see
what a language model sees.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

from icrl_graph.prompts.text import number
from icrl_graph.tasks.word_games.vocabularies import HELD_OUT_SCALES, TRAINING_SCALES, Words

Scale = tuple[float, float]
"""The lowest and the highest reward."""
UNIT: Scale = (0.0, 1.0)


class Game(NamedTuple):
    """What a player knows of a game.

    Attributes:
        family: its name.
        options: the words that it may answer with.
        length: how many of them an answer has, all different.
        scale: the lowest and the highest reward.
    """

    family: str
    options: Words
    length: int = 1
    scale: Scale = UNIT


Wordings = Mapping[str, tuple[str, ...]]
"""By family."""

TRAINING: Wordings = {
    "prize": (
        "One {thing} of these hides a prize: {options}. {same} Name one {thing}.",
        "Find the lucky {thing}. The choices are {options}. The lucky one earns {high}, the others {low}. Answer with "
        "one word.",
        "Choose one {thing}: {options}. Only one of them pays. {same}",
        "I think of one {thing} among {options}. Guess which. Say one word.",
        "Here are {options}. Exactly one of them wins. {same} Which one is it?",
        "Behind one {thing} there is a gift, behind the others there is nothing: {options}. Pick one.",
        "Only one {thing} is right: {options}. You earn {high} for it and {low} for any other. Give one word, nothing "
        "else.",
        "Which {thing} is the winner? {options}. {same} Answer with a single word.",
        "Your choices: {options}. One {thing} is good and all others are bad. Say which one you take.",
        "Guess my favorite {thing}. It is one of {options}. {same}",
        "There is one good {thing}: {options}. Try one of these at a time. {same}",
        "My secret {thing} is among these: {options}. Tell me which one it is.",
        "{options}: one of them is what I want. {same} Reply with that one alone.",
        "You get {high} for the correct {thing} and {low} for all others. Your options are {options}.",
        "A quiz with one question. Which of {options} have I written down? {same}",
        "From {options}, select the {thing} that pays. {same} Write it and nothing more.",
        "Who knows the hidden {thing}? It can be any of {options}. Make your guess.",
        "Take one of {options}. A single {thing} brings a reward, the rest bring none. {same}",
        "Say the magic {thing} and you earn {high}. It has to be one of {options}.",
        "I hid a coin with one of these: {options}. {same} Where do you look first?",
        "This puzzle has one solution, and that is one of {options}. What is it?",
        "Only a single one of {options} opens the box. Call it by its name. {same}",
        "Try your luck: {options}. All of them lose but one. Which {thing} do you want?",
        "Let us play a game. I picked one {thing} out of {options}, and you try to find out which. {same}",
    ),
    "amounts": (
        "Each {thing} pays its own fixed amount between {low} and {high}: {options}. Name one {thing}.",
        "Choose one {thing}: {options}. Some are better than others. {same} Answer with one word.",
        "Which {thing} is worth the most? {options}. You earn what the one that you name is worth.",
        "Find the best {thing} by trying: {options}. {same} Say one word.",
        "Every {thing} has a value that you do not know: {options}. Pick the {thing} with the highest value.",
        "Here are {options}. Each of them gives a certain reward, from {low} to {high}. {same} Take one.",
        "Each of these is worth something else: {options}. Earn as much as you can. Name one {thing}, nothing else.",
        "Pick one {thing}: {options}. What you get depends on your pick alone. {same}",
        "Some {thing} of these pays more than all others: {options}. Which do you choose? Give one word.",
        "I buy one {thing} from you. My price for each is fixed: {options}. Which one do you sell me?",
        "I gave a score to each of {options}. Tell me one of them and I tell you its score. {same}",
        "{options}: each has its own worth. {same} Reply with the one that you want.",
        "All of {options} pay something, but not the same. Which {thing} do you take?",
        "Find out which of {options} is best. Try one {thing} after another. {same}",
        "You get between {low} and {high} for each {thing}: {options}. Make your choice.",
        "Among {options} one {thing} pays the most, one the least. {same} Say which you try.",
        "A test of your skill: out of {options}, select what brings the highest reward. Write it and nothing more.",
        "Every one of {options} has a prize of its own, some large, some small. Call one by its name. {same}",
        "How much is each {thing} worth to me? You find out by asking for one: {options}.",
        "From {options} take the {thing} that earns most. {same}",
        "My friends and I like {options}, each to a different degree. Which one do we like most? {same}",
        "Let us play a game. You say one of {options}, and I pay you what that {thing} is worth.",
        "Here is a list: {options}. To each {thing} belongs a number. {same} Higher numbers are better.",
        "Collect as many points as possible. Each {thing} gives a fixed number of them: {options}.",
    ),
    "closeness": (
        "I have a secret {thing} from {first} to {last}. The nearer your guess, the more you earn. Guess one {thing}.",
        "Guess the hidden {thing}. It is one of {options}, in this order. You earn more the closer you are. {same}",
        "One {thing} is the target: {options}. The target earns {high}, and each step away from it costs {step}. "
        "Answer with one word.",
        "Think of the line {options}. I marked one {thing} on it. Say one, and earn more the nearer it is.",
        "Find my {thing}, from {first} to {last}. A guess that is near earns much, one that is far little. {same}",
        "A {thing} is hidden between {first} and {last}, both included. Each step that you are off costs {step}. Name "
        "one {thing}.",
        "Which {thing} do I mean? They are, in order, {options}. A near miss still earns something. Say one word.",
        "Hit the right {thing}: {options}. The reward falls with the distance from it. {same} Give one word, nothing "
        "else.",
        "Try to name the secret {thing} of this list: {options}. Being close pays, being exact pays {high}.",
        "Somewhere from {first} to {last} is the {thing} that I look for. {same} Your reward is higher the closer you "
        "come.",
    ),
    "order": (
        "Put these in my secret order: {options}. You earn more, the more pairs of them are in the right order. {same}",
        "I rank {options} from best to worst. Guess my ranking. Name all three, the best first.",
        "Find the right order of {options}. It is fixed. Answer with the three words in order.",
        "Three words, one order: {options}. {same} Write all three in the order that you think is right.",
        "Sort {options} the way I do. The reward is the share of pairs that you have the right way round.",
        "In which order did {options} arrive? Say all three, the first one first. {same}",
        "Arrange {options}. One arrangement earns {high}, the reverse of it {low}. Give three words, nothing else.",
        "My list has {options}, but in another order perhaps. Write my list. {same}",
        "What comes first, second and third: {options}? Answer with all three words, with commas between them.",
        "Line up {options} as I have them in mind. A partly right line earns a part. Name each once.",
    ),
    "mastermind": (
        "My code has {count} different words of these: {options}. You earn the share of places that you get right. "
        "{same}",
        "Guess a code of {count} words, each a different one of {options}. The order matters. Answer with the words.",
        "I chose {count} of {options} and put them in a row. Name my row. {same}",
        "Break the code: {count} places, and in each another {thing} out of {options}. Each right place counts.",
        "Say {count} different words out of {options}, in the secret order. {same} All right earns {high}, none {low}.",
        "A lock opens with {count} words in the right order. The words are among {options}. Try {count} of them.",
        "Find the secret sequence. It takes {count} out of {options}, none twice. Write them with commas between them.",
        "There are {options}. I wrote down {count}, each at its place. Write the same. {same}",
        "Pick {count} of these, in order: {options}. A word at its right place pays, any other does not.",
        "The password is made of {count} words, all different: {options}. Guess it. Give the words, nothing else.",
    ),
}

HELD_OUT: Wordings = {
    "prize": (
        "A treasure lies with exactly one {thing}. You may pick {options}. Which do you try now?",
        "Somebody stole a pie, and it was one of these: {options}. Whom or what do you accuse? {same}",
        "There is a coupon inside a single {thing}. Open one: {options}.",
        "Bet on one of the following, since just one will ever succeed: {options}. State your bet in one word.",
    ),
    "amounts": (
        "My taste is secret. I rate every {thing} from {low} to {high}. Offer me one of these: {options}.",
        "Several machines stand here, labelled {options}. Their payouts differ. {same} Push a button by its label.",
        "As a gardener you grow a single {thing} per season: {options}. Harvests vary by kind. What will you plant?",
        "Spend your turn on {options}. Returns are unequal, ranging over {low} to {high}. Reply with your selection.",
    ),
    "closeness": (
        "Warmer or colder? Somewhere along {options} sits a treasure. Dig at one spot.",
        "Tune the dial, marked {options}. Reception is clearest at one {thing} and fades on both sides. {same}",
        "An archer aims at marks running from {first} up to {last}. Where should the arrow land for a full {high}?",
        "Estimate the {thing} that I wrote on a note, no lower than {first} and no higher than {last}. Errors are "
        "penalized by size.",
    ),
    "order": (
        "A queue formed overnight with {options}. Reconstruct it from front to back. {same}",
        "Shelve {options} as the librarian would. Credit is given for every correctly ordered couple.",
        "Rebuild the original sequence: {options} got shuffled. List everything once.",
        "Which finished ahead of which among {options}? Report the full podium, champion at the start.",
    ),
    "mastermind": (
        "The safe wants {count} distinct labels from {options}. Every slot that matches raises your score. {same}",
        "Recite the spell: exactly {count} terms, no repeats, chosen from {options}. Position is everything.",
        "Decode the message hidden as {count} successive terms. Its alphabet is {options}.",
        "Deal {count} cards in the proper positions, without duplicates. The deck consists of {options}.",
    ),
}

TRAINING_SAME = (
    "It is the same in every round.",
    "This never changes.",
    "It stays the same all the time.",
    "Nothing about it changes later.",
    "It is always the same one.",
    "You can try again and again.",
    "I will not change it.",
    "What is true now is true later.",
)
HELD_OUT_SAME = ("From turn to turn everything remains as it is.", "Rest assured that this is permanent.")
"""Ways to say that every attempt is at the same secret."""

_RANGE = " Rewards go from {low} to {high}."
_COUNTS = {2: "two", 3: "three"}


def step_cost(options: Words) -> float:
    """What each step away from a secret word costs, as a share of the whole reward."""
    return 1 / 5 if len(options) <= 6 else 1 / 10


def write(game: Game, wording: str, thing: str, same: str = "") -> str:
    """The text of a game.

    Args:
        game: what the text tells.
        wording: with names in braces.
        thing: the noun for its words.
        same: a sentence that says that the secret does not change.
    """
    low, high = game.scale
    return (wording if game.scale == UNIT else f"{wording}{_RANGE}").format(
        thing=thing,
        options=", ".join(game.options),
        first=game.options[0],
        last=game.options[-1],
        count=_COUNTS.get(game.length),
        low=number(low),
        high=number(high),
        step=number((high - low) * step_cost(game.options)),
        same=same,
    )


def read(text: str) -> Game:
    """The game that a text tells, in any of the wordings: the inverse of `write`.

    Raises:
        ValueError: it tells none.
    """
    ranged = _range_pattern().fullmatch(text)
    scale = (float(ranged["low"]), float(ranged["high"])) if ranged else UNIT
    told = ranged["told"] if ranged else text
    for family, pattern in _patterns():
        if match := pattern.fullmatch(told):
            found = match.groupdict()
            listed = found.get("options")
            options = tuple(listed.split(", ")) if listed else _between(found["first"], found["last"])
            counts = {word: length for length, word in _COUNTS.items()}
            length = len(options) if family == "order" else counts.get(found.get("count", ""), 1)
            return Game(family, options, length, scale)
    raise ValueError(f"none of the word games is told like this: {text!r:.200}")


def _between(first: str, last: str) -> Words:
    """The words of a scale from one to another."""
    for words in (*TRAINING_SCALES.values(), *HELD_OUT_SCALES.values()):
        if first in words and last in words:
            return words[words.index(first) : words.index(last) + 1]
    raise ValueError(f"no scale goes from {first!r} to {last!r}")


_NUMBER = r"-?\d+(?:\.\d+)?(?:e[-+]\d+)?"
_FIELDS = {
    "options": r"\w+(?:, \w+)+",
    "count": "|".join(_COUNTS.values()),
    "same": "|".join(map(re.escape, (*TRAINING_SAME, *HELD_OUT_SAME))),
    **dict.fromkeys(("thing", "first", "last"), r"\w+"),
    **dict.fromkeys(("low", "high", "step"), _NUMBER),
}


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """A pattern for each wording, with its family."""
    return tuple(
        (family, _pattern(wording))
        for wordings in (TRAINING, HELD_OUT)
        for family, forms in wordings.items()
        for wording in forms
    )


@cache
def _range_pattern() -> re.Pattern[str]:
    return re.compile(f"(?P<told>.*){_pattern(_RANGE).pattern}")


def _pattern(wording: str) -> re.Pattern[str]:
    return re.compile("".join(_pieces(wording)))


def _pieces(wording: str) -> Iterator[str]:
    """A wording as the pieces of a pattern: its names in braces stand for what they may hold."""
    named: set[str] = set()
    for place, piece in enumerate(re.split(r"\{(\w+)\}", wording)):
        if place % 2 == 0:
            yield re.escape(piece)
        else:
            yield f"(?P={piece})" if piece in named else f"(?P<{piece}>{_FIELDS[piece]})"
            named.add(piece)
