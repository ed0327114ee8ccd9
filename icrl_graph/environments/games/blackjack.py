"""Blackjack with a deck that is the same in each episode, so that its cards can be learned."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from random import Random
from typing import Any

from icrl_graph.environments.games.game import Game
from icrl_graph.environments.games.players import Seen

DECK = [*range(1, 10), 10, 10, 10, 10] * 4
"""Values; 1 is an ace, which counts 11 where that is not too much."""


class Blackjack(Game):
    """Two cards each, and 48 that lie face down: take any, or stand; the dealer has 17 or more, and takes none."""

    name = "blackjack"
    rules = (
        "Beat the dealer: stand with a higher total than theirs, but not above 21. Court cards count 10, an ace 1 or "
        "11. 48 cards lie face down, numbered 0 to 47; take any of them, or stand. The dealer takes no card. You have "
        "four turns, and standing takes one. The next game begins with the same cards in the same places."
    )
    turns = 4
    form = "Say hit with the number of a card that lies face down, such as hit 12, or stand."

    def hide(self, rng: Random, params: Mapping[str, Any]) -> None:
        """Shuffle until the dealer has 17 or more."""
        deck = [*DECK]
        while True:
            rng.shuffle(deck)
            self.dealer, self.dealt, self.cards = deck[:2], deck[2:4], deck[4:]
            if total(self.dealer) >= 17:
                return

    def begin(self) -> str:
        """One's own cards and the first of the dealer."""
        self.hand, self.taken = [*self.dealt], set[int]()
        return f"The dealer shows {_cards(self.dealer[:1])} and hides a card. You have {_told(self.hand)}."

    def act(self, action: str) -> tuple[str, bool | None] | None:
        """Take a card, or stand."""
        if re.search(r"\b(?:stand|stick|stay)\b", action) and "hit" not in action:
            has_won = total(self.hand) > total(self.dealer)
            return f"You stand. {self.ending()} You {'win' if has_won else 'do not win'}.", has_won
        number = _number(action)
        if number is None or number >= len(self.cards) or number in self.taken:
            return None
        self.taken.add(number)
        self.hand.append(self.cards[number])
        seen = f"Card {number} is {_cards(self.hand[-1:])}. You have {_told(self.hand)}."
        return (f"{seen} That is too much. {self.ending()}", False) if total(self.hand) > 21 else (seen, None)

    def ending(self) -> str:
        """The dealer's hand."""
        return f"The dealer has {_told(self.dealer)}."


def total(hand: Sequence[int]) -> int:
    """What a hand is worth."""
    low = sum(hand)
    return low + 10 if 1 in hand and low <= 11 else low


def _cards(cards: Sequence[int]) -> str:
    return ", ".join("an ace" if card == 1 else str(card) for card in cards)


def _told(hand: Sequence[int]) -> str:
    return f"{_cards(hand)} (in all {total(hand)})"


def _number(action: str) -> int | None:
    numbers = re.findall(r"\d{1,3}", action)
    return int(numbers[0]) if len(numbers) == 1 else None


def any_card(seen: Seen, rng: Random) -> str:
    """Stand, or take a card, with the same probability."""
    return rng.choice(["stand", f"hit {rng.choice(_face_down(seen))}"])


def known_cards(seen: Seen, rng: Random) -> str:
    """Cards that are known to beat the dealer, if there are any; else another one, until the hand is good enough.

    While nothing is known of the dealer, 19 is.
    """
    hand = _hand(seen)
    dealer = next((int(t[1]) for turn in seen.all_turns if (t := _DEALER.search(turn.observation))), 18)
    known = {int(m[1]): _value(m[2]) for turn in seen.all_turns if (m := _CARD.search(turn.observation))}
    hits = Blackjack.turns - 1 - len(seen.turns)
    if total(hand) > dealer or hits <= 0:
        return "stand"
    face_down = _face_down(seen)
    for count in range(1, hits + 1):
        for taken in combinations([number for number in face_down if number in known], count):
            if dealer < total([*hand, *(known[number] for number in taken)]) <= 21:
                return f"hit {taken[0]}"
    return f"hit {rng.choice([number for number in face_down if number not in known])}"


_HAND = re.compile(r"You have (.*?) \(in all \d+\)")
_CARD = re.compile(r"Card (\d+) is (an ace|\d+)")
_DEALER = re.compile(r"The dealer has .*?\(in all (\d+)\)")


def _value(card: str) -> int:
    return 1 if card == "an ace" else int(card)


def _hand(seen: Seen) -> list[int]:
    shown = [
        match[1] for text in (seen.first, *(turn.observation for turn in seen.turns)) if (match := _HAND.search(text))
    ]
    return [_value(card) for card in shown[-1].split(", ")]


def _face_down(seen: Seen) -> list[int]:
    taken = {int(match[1]) for turn in seen.turns if (match := _CARD.search(turn.observation))}
    return [number for number in range(len(DECK) - 4) if number not in taken]
