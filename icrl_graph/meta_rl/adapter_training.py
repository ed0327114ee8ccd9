"""The training loop of adapters: iterations with a schedule, a log with a line for each, checkpoints to resume from."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

from icrl_graph.meta_rl.language_model import LanguageModel
from icrl_graph.meta_rl.pytorch import Tensor, torch

Row = TypeVar("Row")
Fact = TypeVar("Fact")
CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """All that decides the weights, apart from the versions of the libraries and the processor."""

    iterations: int
    learning_rate: float
    """Peak of the schedule: a linear rise over `warm_up` iterations, then a fall along a cosine."""
    warm_up: int = 10
    fall_to: float = 0.1
    """The share of the peak at the end."""
    part: int = 4
    """Sequences that are computed at once."""
    workers: int = 2
    """How many parts are computed side by side, each by one thread; their gradients do not depend on it."""
    seed: int = 0
    save_every: int = 10
    """Iterations between checkpoints."""

    def learning_rate_at(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0."""
        fall = 0.5 * (1 + math.cos(math.pi * iteration / self.iterations))
        return (
            self.learning_rate * min(1.0, (iteration + 1) / self.warm_up) * (self.fall_to + (1 - self.fall_to) * fall)
        )

    def parts(self, rows: Sequence[Row], key: Callable[[Row], Any]) -> Iterator[Sequence[Row]]:
        """So many rows at once, those of like keys together, the highest first.

        By their lengths, little is filled up; by their prompts, what they begin with in common is read once.
        """
        ordered = sorted(rows, key=key, reverse=True)
        for first in range(0, len(ordered), self.part):
            yield ordered[first : first + self.part]


def fit(
    model: LanguageModel,
    step: Callable[[LanguageModel, Any, int], Mapping[str, Any]],
    stage: Stage,
    folder: Path,
    progress: Callable[[int, Mapping[str, Any]], None] | None = None,
) -> None:
    """Train an adapter by AdamW with clipped gradients; in the same folder it goes on where it was.

    Args:
        model: what is trained, in place.
        step: adds up the gradients of an iteration; called with the model, the stage and the iteration, from 0.
        stage: iterations and schedule.
        folder: gets a line of `log.jsonl` for each iteration, checkpoints, and at the end the adapter.
        progress: called after each iteration with its number (from 1) and what it came to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    first = _restore(model, optimizer, stage, folder)
    with open(folder / LOG, "a") as log:
        for iteration in range(first, stage.iterations):
            facts = step(model, stage, iteration)
            for group in optimizer.param_groups:
                group["lr"] = stage.learning_rate_at(iteration)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            log.write(json.dumps({"iteration": iteration + 1, **facts}) + "\n")
            log.flush()
            if (iteration + 1) % stage.save_every == 0 or iteration + 1 == stage.iterations:
                _save(model, optimizer, stage, folder, iteration + 1)
            if progress is not None:
                progress(iteration + 1, facts)
    model.save(folder)


def add_gradients(
    model: LanguageModel,
    parts: Iterator[Sequence[Row]],
    loss: Callable[[Sequence[Row]], tuple[Tensor, Fact]],
    workers: int,
) -> list[Fact]:
    """Add up the gradients of parts, computed side by side, in the order of the parts: their sum is always the same.

    Two threads that each compute a part are a third faster on two cores than two that share one.

    Args:
        model: gets the gradients.
        parts: of a batch.
        loss: of a part, and what else is to be known of it.
        workers: how many threads there are.

    Returns:
        What else is to be known of each part.
    """
    weights, threads = model.parameters(), torch.get_num_threads()

    def gradients(part: Sequence[Row]) -> tuple[Sequence[Tensor], Fact]:
        value, fact = loss(part)
        return torch.autograd.grad(value, weights), fact

    facts = []
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for of_part, fact in pool.map(gradients, parts):
                for weight, gradient in zip(weights, of_part, strict=True):
                    weight.grad = gradient if weight.grad is None else weight.grad + gradient
                facts.append(fact)
    finally:
        torch.set_num_threads(threads)
    return facts


def is_done(folder: Path, stage: Stage) -> bool:
    """Whether a folder holds this training, whole, with its adapter.

    Raises:
        ValueError: it holds one with other settings.
    """
    done = (folder / CHECKPOINT).exists() and _checkpoint(stage, folder)["done"] == stage.iterations
    return done and (folder / "adapter_model.safetensors").exists()


def _save(model: LanguageModel, optimizer: Any, stage: Stage, folder: Path, done: int) -> None:
    weights = [weight.detach() for weight in model.parameters()]
    state = {"stage": asdict(stage), "done": done, "weights": weights, "optimizer": optimizer.state_dict()}
    packed = io.BytesIO()
    torch.save(state, packed)
    (folder / f"{CHECKPOINT}.new").write_bytes(packed.getvalue())  # PyTorch itself does not say that a disk is full
    os.replace(folder / f"{CHECKPOINT}.new", folder / CHECKPOINT)


def _restore(model: LanguageModel, optimizer: Any, stage: Stage, folder: Path) -> int:
    """Go on from the checkpoint of a folder, if there is one; returns how many iterations are done."""
    if not (folder / CHECKPOINT).exists():
        (folder / LOG).unlink(missing_ok=True)
        return 0
    state = _checkpoint(stage, folder)
    with torch.no_grad():
        for weight, saved in zip(model.parameters(), state["weights"], strict=True):
            weight.copy_(saved)
    optimizer.load_state_dict(state["optimizer"])
    done = int(state["done"])
    lines = (folder / LOG).read_text().splitlines(keepends=True)
    (folder / LOG).write_text("".join(lines[:done]))
    return done


def _checkpoint(stage: Stage, folder: Path) -> dict[str, Any]:
    """The checkpoint of a folder.

    Raises:
        ValueError: it is one of another training, or damaged.
    """
    try:
        state: dict[str, Any] = torch.load(folder / CHECKPOINT, weights_only=True)
        had = state["stage"]
    except (EOFError, RuntimeError, UnpicklingError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / CHECKPOINT} is damaged ({type(error).__name__}): choose another folder, or delete {folder} to "
            "train this stage again"
        ) from error
    asked = asdict(stage)
    if others := [name for name in asked if had.get(name) != asked[name]]:
        told = ", ".join(f"{name} {had.get(name)!r} -> {asked[name]!r}" for name in others)
        raise ValueError(f"{folder} holds a training with other settings, {told}: choose another folder")
    return state
