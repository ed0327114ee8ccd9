"""What ScienceWorld costs here and in the plain package, which lists the valid actions at every step."""

import shutil
from statistics import median

import pytest

from tests.performance.lab import child, full_only, record

PAIRS = 3


@full_only
@pytest.mark.skipif(shutil.which("java") is None, reason="there is no Java")
def test_a_world_is_faster_and_smaller_than_the_plain_one() -> None:
    pairs = [(child("worlds", "ours"), child("worlds", "plain")) for _ in range(PAIRS)]
    missed = []
    goals = (("start", "s", "<= 1.1x"), ("steps", "steps/s", ">= 1.5x"), ("memory", "MB", "<= 0.7x"))
    for what, unit, goal in goals:
        ratio = median(ours[what] / plain[what] for ours, plain in pairs)
        ours, plain = (median(side[what] for side in sides) for sides in zip(*pairs, strict=True))
        limit = float(goal[3:-1])
        met = ratio >= limit if goal.startswith(">") else ratio <= limit
        record(
            f"ScienceWorld: {what} over the plain package",
            goal,
            f"{ratio:.2f}x ({ours:.1f} {unit} of {plain:.1f})",
            met,
        )
        missed += [] if met else [what]
    assert not missed
