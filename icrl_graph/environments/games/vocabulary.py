"""Common English words of three and of five letters, some of them held out."""

from __future__ import annotations

from functools import cache
from random import Random

from icrl_graph.environments.games.game import Split

_WORDS = {
    3: """
        act add age air art ask bad bag bar bat bed bee big bit box boy bus buy can cap car cat cow cry cup cut
        day dig dog dry ear eat egg end eye fan far fat few fit fix fly fog fox fun gas gum gun hat hen hit
        hot ice ink jam jar jet job joy key kid leg let lid lip log low mad man map mat mix mud net new nut oak
        oil old owl pan pen pet pie pig pin pot put rat raw red rib rob row rug run sad saw sea set shy
        sit six sky son sun tax tea ten tie tin toe top toy two van war way wet win yes zoo
        """,
    5: """
        about above actor apple badge beach begin bench birth black blade blind block blood board brain bread
        brick bride brown brush build cabin candy chair chalk cheap chest chief child clean clock cloud coach
        coast cover crowd crown dance death dirty dream dress drink drive eagle early earth empty enemy faith
        field fight floor flour fruit ghost giant glass globe grain grass green group guest happy heart heavy
        honey horse hotel house juice knife large laugh lemon light lunch magic maple metal model money month
        mouse mouth music night noise north nurse ocean onion paint paper party peace phone piano plane plant
        plate pride prize queen quick quiet radio river robot round royal salad scale sheep shelf shirt shoes
        short skirt sleep small smile smoke snake south space spoon sport stage stone storm story sugar sweet
        table tiger tired today tooth touch towel tower train trust uncle under value video voice watch water
        whale wheat wheel white woman world write young
        """,
}
HELD_OUT = 0.25
"""The share of the words that is held out, for the split "test"."""


@cache
def words(length: int, split: Split | None = None) -> tuple[str, ...]:
    """The words of that length, of a split or all; the splits have no word in common."""
    every = sorted(_WORDS[length].split())
    Random(0).shuffle(every)
    held_out = round(HELD_OUT * len(every))
    return tuple({"test": every[:held_out], "train": every[held_out:], None: every}[split])
