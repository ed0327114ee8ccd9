"""Games of guessing: Mastermind, hangman, and a hidden word of five letters as in Wordle."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from itertools import permutations
from random import Random
from typing import Any

from icrl_graph.environments.games.game import Game, spelled
from icrl_graph.environments.games.players import Seen
from icrl_graph.environments.games.vocabulary import words

# ---------------------------------------------------------------------------------------------------------- Mastermind

CODES = tuple("".join(digits) for digits in permutations("123456", 3))


class Mastermind(Game):
    """A code of three different digits out of 1 to 6, in three guesses."""

    name = "mastermind"
    rules = (
        "A code is hidden: three different digits from 1 to 6. Guess it. After each guess you are told how many of its "
        "digits are in the right place (black) and how many others are in the code, but in another place (white). You "
        "have three guesses."
    )
    turns = 3
    form = "Say three different digits from 1 to 6, such as 415."

    def hide(self, rng: Random, params: Mapping[str, Any]) -> None:
        """Draw the code."""
        self.code = rng.choice(CODES)

    def begin(self) -> str:
        """Nothing is known yet."""
        return "The code is hidden. Make your first guess."

    def act(self, action: str) -> tuple[str, bool | None] | None:
        """Guess."""
        guess = _digits(action)
        if guess not in CODES:
            return None
        black, white = pegs(guess, self.code)
        return f"{black} black, {white} white.", True if black == 3 else None


def _digits(action: str) -> str:
    return "".join(re.findall(r"[0-9]", action))


@cache
def pegs(guess: str, code: str) -> tuple[int, int]:
    """Digits in the right place, and further ones that are in the code."""
    black = sum(g == c for g, c in zip(guess, code, strict=True))
    return black, len(set(guess) & set(code)) - black


def any_code(seen: Seen, rng: Random) -> str:
    """A code that was not guessed in this episode."""
    tried = {_digits(turn.action) for turn in seen.turns}
    return rng.choice([code for code in CODES if code not in tried])


def fitting_code(seen: Seen, rng: Random) -> str:
    """A code that fits all that was seen."""
    told = {_digits(turn.action): _pegs_told(turn.observation) for turn in seen.all_turns}
    fits = [_codes(guess, told) for guess, told in told.items() if guess in CODES and told]
    return rng.choice([code for code in CODES if all(code in codes for codes in fits)])


@cache
def _codes(guess: str, told: tuple[int, int]) -> frozenset[str]:
    """The codes for which a guess is answered so."""
    return frozenset(code for code in CODES if pegs(guess, code) == told)


def _pegs_told(observation: str) -> tuple[int, int] | None:
    match = re.search(r"(\d) black, (\d) white", observation)
    return (int(match[1]), int(match[2])) if match else None


# ------------------------------------------------------------------------------------------------------------- hangman


class Hangman(Game):
    """A common English word of three letters, in ten guesses of a letter or of the word."""

    name = "hangman"
    rules = (
        "A common English word of three letters is hidden. Each turn, guess one letter or the whole word. A letter "
        "that is in the word is shown wherever it stands. You have ten guesses."
    )
    turns = 10
    form = "Say one letter, or a word of three letters."

    def hide(self, rng: Random, params: Mapping[str, Any]) -> None:
        """Draw the word."""
        self.word = rng.choice(words(3, self.split))

    def begin(self) -> str:
        """All letters are hidden."""
        self.found: set[str] = set()
        return f"The word: {self._masked()}"

    def act(self, action: str) -> tuple[str, bool | None] | None:
        """Guess."""
        guess = spelled(action)
        if len(guess) not in (1, len(self.word)) or not guess.isascii():
            return None
        if len(guess) == 1:
            self.found.add(guess)
        is_solved = guess == self.word or self.found >= set(self.word)
        said = "Yes." if guess in self.word else "No."
        return (f"Yes. The word is {self.word}.", True) if is_solved else (f"{said} The word: {self._masked()}", None)

    def _masked(self) -> str:
        return " ".join(letter if letter in self.found else "_" for letter in self.word)


def any_letter(seen: Seen, rng: Random) -> str:
    """A letter that was not guessed in this episode."""
    tried = {turn.action for turn in seen.turns}
    return rng.choice([letter for letter in "abcdefghijklmnopqrstuvwxyz" if letter not in tried])


def informative_letter(seen: Seen, rng: Random) -> str:
    """The word, once only one fits; else the letter that is in half of the words that fit, as nearly as can be."""
    fitting = _fitting_words(seen)
    if len(fitting) <= 1:
        return fitting[0] if fitting else any_letter(seen, rng)
    counts = Counter(letter for word in fitting for letter in set(word))
    closest = min(abs(2 * count - len(fitting)) for count in counts.values())
    letters = sorted(letter for letter, count in counts.items() if abs(2 * count - len(fitting)) == closest)
    return rng.choice(letters) if closest < len(fitting) else rng.choice(fitting)


def _fitting_words(seen: Seen) -> list[str]:
    """The words that fit all that was seen."""
    fits = [_showing(spelled(turn.action), _shown(turn.observation)) for turn in seen.all_turns]
    return [word for word in words(3) if all(word in showing for showing in fits)]


def _shown(observation: str) -> str:
    """The word as it is shown, with a _ for each hidden letter; nothing where the guess was not understood."""
    match = re.search(r"The word: (.) (.) (.)|The word is (.)(.)(.)", observation)
    return "".join(filter(None, match.groups())) if match else ""


@cache
def _showing(guess: str, shown: str) -> frozenset[str]:
    """The words that may be shown so after a guess."""
    return frozenset(word for word in words(3) if _fits(word, guess, shown))


def _fits(word: str, guess: str, shown: str) -> bool:
    return not shown or (
        all(s == w or (s == "_" and w not in shown) for s, w in zip(shown, word, strict=True))
        and (word == shown or word != guess)
        and (len(guess) > 1 or (guess in word) == (guess in shown))
    )


# --------------------------------------------------------------------------------------------------------- hidden word


class HiddenWord(Game):
    """A common English word of five letters, in ten guesses, as in Wordle."""

    name = "wordle"
    rules = (
        "A common English word of five letters is hidden. Guess it. After each guess each of its letters gets a mark: "
        "G where it is right, Y where the word has it in another place, X where the word does not have it (again). You "
        "have ten guesses."
    )
    turns = 10
    form = "Say a word of five letters."

    def hide(self, rng: Random, params: Mapping[str, Any]) -> None:
        """Draw the word."""
        self.word = rng.choice(words(5, self.split))

    def begin(self) -> str:
        """Nothing is known yet."""
        return "The word is hidden. Make your first guess."

    def act(self, action: str) -> tuple[str, bool | None] | None:
        """Guess; it need not be a word."""
        guess = spelled(action)
        if len(guess) != len(self.word) or not guess.isascii():
            return None
        found = marks(guess, self.word)
        return found, True if guess == self.word else None


@cache
def marks(guess: str, word: str) -> str:
    """A mark for each letter; of a letter that is guessed more often than the word has it, right places come first."""
    left = Counter(w for g, w in zip(guess, word, strict=True) if g != w)
    out = []
    for g, w in zip(guess, word, strict=True):
        out.append("G" if g == w else "Y" if left[g] > 0 else "X")
        left[g] -= g != w
    return "".join(out)


def any_word(seen: Seen, rng: Random) -> str:
    """A word that was not guessed in this episode."""
    tried = {turn.action for turn in seen.turns}
    return rng.choice([word for word in words(5) if word not in tried])


def fitting_word(seen: Seen, rng: Random) -> str:
    """A word that fits all that was seen."""
    told = {
        spelled(turn.action): turn.observation[:5] for turn in seen.all_turns if re.match("[GYX]{5}", turn.observation)
    }
    fits = [_marked(guess, found) for guess, found in told.items()]
    return rng.choice([word for word in words(5) if all(word in marked for marked in fits)])


@cache
def _marked(guess: str, found: str) -> frozenset[str]:
    """The words for which a guess is marked so."""
    return frozenset(word for word in words(5) if marks(guess, word) == found)
