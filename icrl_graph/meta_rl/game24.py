"""How the shipped learner of Game of 24 was made: distillation of a pruning teacher into a cross-attention network.

The teacher takes the moves that its history shows to be right, never those that it shows to be wrong, and otherwise
follows its base (`icrl_graph.tasks.game24.game.prune`). The student sees the same histories and is trained towards the
teacher's odds of every move: soft labels, Kullback-Leibler loss. What a move leaves is encoded by a random code, drawn
anew for every batch. So nothing can be learned about numbers: only to look a move up in the history, and what the
reward there means for it.

Every fourth batch is played by the student itself, and part of the games begin with random attempts, so that it is
trained on histories that are not the teacher's; in some, only the outcome of each attempt is shown, or nothing. The
bases are random, from useless to nearly perfect, so that one network serves any base.

The recipe is fixed by iterations and seeds, not by minutes. It runs on one CPU core and needs PyTorch:
`pip install 'icrl-graph[train]'`, then `icrl train game24 --out DIR`. No puzzle of validation or test is played in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, combinations_with_replacement, pairwise
from typing import Any, NamedTuple

from icrl_graph.meta_rl import training
from icrl_graph.meta_rl.layers import Network
from icrl_graph.meta_rl.pytorch import Tensor, torch
from icrl_graph.meta_rl.training import Progress, fit
from icrl_graph.models.learners.cross_attention import ALIVE, DEAD, GAIN, NOT_SHOWN, UNLIKELY, Shape
from icrl_graph.tasks.game24.game import SURE, Numbers, Split, moves, solvable, split

WIDTHS = (24, 12, 4)
"""The most moves that there can be at each of the three steps."""
_BOUNDS = (0, *accumulate(WIDTHS))
_SLICES = tuple(slice(start, end) for start, end in pairwise(_BOUNDS))


@dataclass(frozen=True, kw_only=True)
class Recipe(training.Recipe):
    """What decides the weights of this learner; the shares add up to at most 1."""

    iterations: int = 700
    warm_up: int = 50
    fall: float = 1 / 1.3
    smoothing: float = 0.97
    batch: int = 128
    """Games per iteration."""
    rounds: int = 16
    """Attempts of a game."""
    graded: int = 4
    """Rounds of a batch, drawn at random, that enter the loss."""
    student_plays_every: int = 4
    """Of so many batches, the last is played by the student; the teacher only gives the targets."""
    prefixed: float = 0.25
    """Share of games that begin with 1 to 7 random attempts."""
    outcome: float = 0.15
    """Share of games that show the outcome of an attempt alone."""
    hidden: float = 0.1
    """Share of games that show no rewards."""
    no_base: float = 0.35
    """Share of games without a base; the others have a random one."""


def train(recipe: Recipe, progress: Progress | None = None, shape: Shape | None = None) -> Student:
    """Run the recipe.

    Args:
        recipe: what to run.
        progress: called after each iteration with its number (from 1) and the smoothed loss in nats a step.
        shape: the sizes of the network.
    """
    board = Board()

    def loss(student: Student, iteration: int) -> Tensor:
        student_plays = (iteration + 1) % recipe.student_plays_every == 0
        games = play(board, draw(board, recipe), recipe.rounds, student if student_plays else None)
        return _loss(student, board, games, torch.randperm(recipe.rounds)[: recipe.graded])

    return fit(lambda: Student(shape or Shape()), loss, recipe, progress)


def _loss(student: Student, board: Board, games: Games, rounds: Tensor) -> Tensor:
    """Divergence of the student's odds from the teacher's in these rounds; moves in a lost position count less."""
    options, legal, wanted = (part[:, rounds] for part in (games.options, games.legal, games.teacher))
    scores = student(games, rounds).masked_fill(~legal, -1e9)
    odds = torch.cat([torch.log_softmax(scores[..., part], -1) for part in _SLICES], -1)
    divergence = (wanted * (wanted.clamp_min(1e-9).log() - odds)).masked_fill(~legal, 0.0)
    weight = 0.3 + 0.7 * board.alive[games.before[:, rounds]]
    return (divergence * weight.repeat_interleave(torch.tensor(WIDTHS), -1)).sum() / options[..., 0].numel() / 3


# ---------------------------------------------------------------------------------------------------------- the games


class Board:
    """The graph of all states as tensors."""

    def __init__(self) -> None:
        levels: list[list[Numbers]] = [list(combinations_with_replacement(range(1, 14), 4))]
        for _ in WIDTHS:
            levels.append(sorted({after for before in levels[-1] for after in moves(before)}))
        self.states = [state for level in levels for state in level]
        self._index = {state: i for i, state in enumerate(self.states)}
        after = [[self._index[move] for move in moves(state)] for state in self.states]
        padded = [row + [-1] * (WIDTHS[0] - len(row)) for row in after]
        self.moves: Tensor = torch.tensor(padded)
        """(states, 24): what each move leaves; where there is none, 0."""
        self.legal: Tensor = self.moves >= 0
        self.moves.clamp_min_(0)
        self.alive: Tensor = torch.tensor([float(solvable(state)) for state in self.states])
        """Whether 24 can be made of a state: 1.0 or 0.0."""

    def puzzles(self, name: Split) -> Tensor:
        """The states of a split's puzzles."""
        return torch.tensor([self._index[numbers] for numbers in split(name)])


class Draw(NamedTuple):
    """The random part of a batch of games."""

    puzzles: Tensor
    """(games,)."""
    base: Tensor
    """(games, states): how likely the base takes a move that leaves a state, as scores."""
    prefix: Tensor
    """(games,): how many attempts at the start are random."""
    mode: Tensor
    """(games,): which rewards are shown; 0 those of every step, 1 the outcome alone, 2 none."""


def draw(board: Board, recipe: Recipe) -> Draw:
    """A batch for training."""
    count = recipe.batch
    puzzles = board.puzzles("train")
    luck = torch.rand(count)
    knowledge, noise = 5 * torch.rand(count, 1), 3 * torch.rand(count, 1)
    base = knowledge * (2 * board.alive - 1) + noise * torch.randn(count, len(board.states))
    return Draw(
        puzzles=puzzles[torch.randint(len(puzzles), (count,))],
        base=base * (torch.rand(count, 1) >= recipe.no_base),
        prefix=torch.randint(1, 8, (count,)) * (torch.rand(count) < recipe.prefixed),
        mode=(luck < recipe.outcome + recipe.hidden).long() + (luck < recipe.hidden).long(),
    )


class Games(NamedTuple):
    """A batch of played games: of each attempt its three steps."""

    before: Tensor
    """(games, rounds, 3)."""
    after: Tensor
    shown: Tensor
    """(games, rounds, 3): DEAD, ALIVE or NOT_SHOWN."""
    options: Tensor
    """(games, rounds, 40): what the moves of the first, second and third step leave."""
    legal: Tensor
    """(games, rounds, 40): whether there is such a move."""
    base: Tensor
    """(games, rounds, 40): log-probabilities by the base."""
    teacher: Tensor
    """(games, rounds, 40): the teacher's odds."""


def play(board: Board, drawn: Draw, rounds: int, student: Student | None = None) -> Games:
    """Play a batch of games.

    Args:
        board: the states.
        drawn: the random part.
        rounds: attempts of a game.
        student: the network that plays; by default the teacher does.
    """
    count = len(drawn.puzzles)
    known = torch.full((count, len(board.states)), NOT_SHOWN, dtype=torch.uint8)
    played: list[tuple[Tensor, ...]] = []
    memory = None if student is None else _Memory(student, board)
    with torch.no_grad():
        for number in range(rounds):
            left, before, after, rest = drawn.puzzles, [], [], []
            for step, width in enumerate(WIDTHS):
                options, legal = board.moves[left, :width], board.legal[left, :width]
                base = torch.log_softmax(drawn.base.gather(1, options).masked_fill(~legal, -1e9), -1)
                base = base.clamp_min(UNLIKELY)
                wanted = _teacher(board, known, options, legal, base, step)
                scores = wanted if memory is None else memory.scores(step, options, base).masked_fill(~legal, -1e9)
                random = torch.zeros_like(scores).masked_fill(~legal, -1e9)
                scores = torch.where((number < drawn.prefix)[:, None], random, scores)
                chosen = torch.softmax(scores, -1).multinomial(1)
                before.append(left)
                left = options.gather(1, chosen).squeeze(1)
                after.append(left)
                rest.append((options, legal, base, torch.softmax(wanted, -1)))
            path = torch.stack(after, 1)
            shown = _shown(board.alive[path].long(), drawn.mode)
            _note(known, path, shown)
            played.append((torch.stack(before, 1), path, shown, *(torch.cat(p, 1) for p in zip(*rest, strict=True))))
            if memory is not None:
                memory.add(*played[-1][:3])
    return Games(*(torch.stack(part, 1) for part in zip(*played, strict=True)))


def _teacher(board: Board, known: Tensor, options: Tensor, legal: Tensor, base: Tensor, step: int) -> Tensor:
    """What `icrl_graph.tasks.game24.game.prune` scores, for a batch."""
    shown = known.gather(1, options)
    dead, alive = shown == DEAD, shown == ALIVE
    if step == 1:
        last = board.moves[options][..., : WIDTHS[2]]
        failed = known.gather(1, last.flatten(1)).view(last.shape) == DEAD
        dead = dead | ((failed | ~board.legal[options][..., : WIDTHS[2]]).all(-1) & ~alive)
    return (base + SURE * (alive.float() - dead.float())).masked_fill(~legal, -1e9)


def _shown(truth: Tensor, mode: Tensor) -> Tensor:
    """What the prompt shows of each step of an attempt, by the mode of its game."""
    outcome = torch.where(truth[:, 2:] == ALIVE, ALIVE, torch.tensor([[NOT_SHOWN, NOT_SHOWN, DEAD]]))
    shown = torch.where((mode == 1)[:, None], outcome, truth)
    return torch.where((mode == 2)[:, None], NOT_SHOWN, shown)


def _note(known: Tensor, path: Tensor, shown: Tensor) -> None:
    """Record the rewards shown of states in `known`."""
    before = known.gather(1, path)
    known.scatter_(1, path, shown.to(known.dtype).where(shown != NOT_SHOWN, before))


# -------------------------------------------------------------------------------------------------------- the network


class Student(Network):
    """The network in PyTorch.

    Args:
        shape: its sizes.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        width = shape.width
        self.add("none", torch.zeros(width))
        self.add("shown", torch.randn(3, width))
        self.add("step", torch.randn(shape.steps, width))
        self.add("query_step", torch.randn(shape.steps, width))
        self.add_linear("code", width, width)
        self.add_norm("code_norm")
        self.add_linear("before", width, width)
        self.add_linear("base", 2, width)
        self.add_norm("token_norm")
        for i in range(shape.layers):
            self.add_linear(f"{i}.query", width, width)
            self.add_linear(f"{i}.kv", width, 2 * width)
            self.add_linear(f"{i}.out", width, width, 0.5)
            self.add_feed_forward(str(i), 2 * width, 0.5)
            self.add_norm(f"{i}.norm1")
            self.add_norm(f"{i}.norm2")
        self.add_head(1, 0.1)

    def encode(self, codes: Tensor) -> Tensor:
        """The encoding of states by their codes."""
        return self.norm("code_norm", self.linear("code", codes))

    def tokens(self, before: Tensor, after: Tensor, shown: Tensor, number: Tensor) -> Tensor:
        """Tokens of steps that were tried: their states encoded, what was shown of them, and their numbers."""
        step = self.array("shown")[shown] + self.array("step")[number]
        return self.norm("token_norm", after + self.linear("before", before) + step)

    def nothing(self, count: int) -> Tensor:
        """The token that stands first in each of `count` histories."""
        return self.norm("token_norm", self.array("none")).expand(count, 1, -1)

    def keys_and_values(self, tokens: Tensor) -> list[Any]:
        """Keys and values of tokens, for each layer."""
        return [self.heads(self.linear(f"{i}.kv", tokens), 2) for i in range(self.shape.layers)]

    def scores(self, moves: Tensor, number: Tensor, base: Tensor, memory: Any, mask: Tensor | None = None) -> Tensor:
        """Scores of encoded moves by the keys and values of a history."""
        likely = torch.stack([base / 4, (base > -0.7).float()], -1)
        x = moves + self.array("query_step")[number] + self.linear("base", likely)
        for i, (key, value) in enumerate(memory):
            (query,) = self.heads(self.linear(f"{i}.query", self.norm(f"{i}.norm1", x)))
            x = self.linear(f"{i}.out", self.attend(query, key, value, attn_mask=mask), x)
            x = self.feed_forward(str(i), self.norm(f"{i}.norm2", x), x)
        return base + GAIN * self.head(x).squeeze(-1)

    def forward(self, games: Games, rounds: Tensor) -> Tensor:
        """The scores of all moves in these rounds, (games, rounds, 40)."""
        count, graded, width = len(games.before), len(rounds), self.shape.width
        until = int(rounds.max())
        codes = torch.randn(int(games.options.max()) + 1, width)
        steps = torch.arange(self.shape.steps)
        tried = [part[:, :until].reshape(count, -1) for part in (games.before, games.after, games.shown)]
        before, after = (self.encode(codes[states]) for states in tried[:2])
        tokens = self.tokens(before, after, tried[2], steps.repeat(until))
        memory = self.keys_and_values(torch.cat([self.nothing(count), tokens], 1))
        moves = self.encode(codes[games.options[:, rounds].reshape(count, -1)])
        number = steps.repeat_interleave(torch.tensor(WIDTHS)).repeat(graded)
        seen = torch.arange(tokens.shape[1]) < 3 * rounds.repeat_interleave(sum(WIDTHS))[:, None]
        mask = torch.cat([torch.ones(len(seen), 1, dtype=torch.bool), seen], 1)
        base = games.base[:, rounds].reshape(count, -1)
        return self.scores(moves, number, base, memory, mask).view(count, graded, -1)


class _Memory:
    """What the student has read of a batch of games so far; codes are drawn once for all rounds."""

    def __init__(self, student: Student, board: Board) -> None:
        self._student = student
        with torch.no_grad():
            self._encoded: Tensor = student.encode(torch.randn(len(board.states), student.shape.width))
            self._tokens: list[Tensor] = [student.nothing(1)]

    def add(self, before: Tensor, after: Tensor, shown: Tensor) -> None:
        """Read an attempt of every game: three tensors (games, 3)."""
        steps = torch.arange(before.shape[1])
        self._tokens.append(self._student.tokens(self._encoded[before], self._encoded[after], shown, steps))

    def scores(self, step: int, options: Tensor, base: Tensor) -> Tensor:
        """Scores of moves, (games, moves)."""
        tokens = torch.cat([part.expand(len(options), -1, -1) for part in self._tokens], 1)
        memory = self._student.keys_and_values(tokens)
        return self._student.scores(self._encoded[options], torch.tensor(step), base, memory)
