"""Answers for many trials at once: each asks in its own graph, and all that wait are answered by one pass.

What was read of each trial is kept between its rounds, as long as the same trials ask again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import convert_to_openai_messages
from langchain_core.runnables import RunnableLambda

from icrl_graph.meta_rl.language_model import LanguageModel
from icrl_graph.meta_rl.pytorch import Tensor, torch
from icrl_graph.meta_rl.samples import Recorder, Sample


@dataclass
class _Asked:
    trial: int
    sample: Sample
    answered: asyncio.Future[tuple[list[int], list[float]]]


class Sampler:
    """Samples the answers of trials that are played side by side.

    Args:
        model: the model.
        trials: how many there are. It answers when all that have not ended wait for an answer.
        seed: of all that it draws.
        temperature: above 0.
        max_tokens: of an answer, its end included.

    Attributes:
        error: what the model failed by, if it did; a graph takes it for the failure of an attempt, and goes on.
    """

    def __init__(
        self, model: LanguageModel, trials: int, *, seed: int = 0, temperature: float = 1.0, max_tokens: int = 8
    ) -> None:
        self._model, self._running = model, trials
        self._temperature, self._max_tokens = temperature, max_tokens
        self._draws = torch.Generator(model.model.device).manual_seed(seed)
        self._asked: list[_Asked] = []
        self.error: Exception | None = None
        self._cache = _Cache(model, [])

    def player(self, trial: int, recorder: Recorder) -> RunnableLambda[Any, Any]:
        """What plays a trial: a Runnable that answers prompts, and records what it read and wrote."""
        rounds = 0

        async def answer(messages: Any) -> str:
            nonlocal rounds
            sample = recorder.read(convert_to_openai_messages(messages))
            ids, logprobs = await self._ask(trial, sample)
            text = self._model.text(ids)
            ended = self._model.end_text() if ids[-1] == self._model.end else ""
            recorder.wrote(text, ids, rounds, end=ended, logprobs=logprobs)
            rounds += 1
            return text

        return RunnableLambda(answer)

    def ended(self) -> None:
        """A trial has ended: it asks no more."""
        self._running -= 1
        self._answer_if_all_wait()

    async def _ask(self, trial: int, sample: Sample) -> tuple[list[int], list[float]]:
        asked = _Asked(trial, sample, asyncio.get_running_loop().create_future())
        self._asked.append(asked)
        self._answer_if_all_wait()
        return await asked.answered

    def _answer_if_all_wait(self) -> None:
        if not self._asked or len(self._asked) < self._running:
            return
        asked, self._asked = sorted(self._asked, key=lambda one: one.trial), []
        try:
            answers = self._sampled([one.sample for one in asked])
        except Exception as error:
            self.error = error
            for one in asked:
                one.answered.set_exception(error)
            return
        for one, answer in zip(asked, answers, strict=True):
            one.answered.set_result(answer)

    def _sampled(self, samples: Sequence[Sample]) -> list[tuple[list[int], list[float]]]:
        with torch.no_grad():
            return self._draw(samples)

    def _draw(self, samples: Sequence[Sample]) -> list[tuple[list[int], list[float]]]:
        if not self._cache.holds(samples):
            self._cache = _Cache(self._model, samples)
        answers: list[tuple[list[int], list[float]]] = [([], []) for _ in samples]
        new = [sample.ids[read:] for sample, read in zip(samples, self._cache.read, strict=True)]
        going = list(range(len(samples)))
        for place in range(self._max_tokens):
            logits = self._cache.feed(new) / self._temperature
            logprobs = logits.log_softmax(-1)
            drawn = torch.multinomial(logprobs.exp(), 1, generator=self._draws)[:, 0].tolist()
            for row in going:
                answers[row][0].append(drawn[row])
                answers[row][1].append(float(logprobs[row, drawn[row]]))
            going = [row for row in going if drawn[row] != self._model.end]
            if not going or place + 1 == self._max_tokens:
                break
            new = [[drawn[row]] if row in going else [] for row in range(len(samples))]
        return answers


class _Cache:
    """What a model keeps of sequences that grow: keys and values, padded to one width."""

    def __init__(self, model: LanguageModel, samples: Sequence[Sample]) -> None:
        from transformers import DynamicCache

        self._model, self._samples = model, list(samples)
        self._values = DynamicCache()
        self._device = model.model.device
        self._mask = torch.zeros(len(samples), 0, dtype=torch.long, device=self._device)
        self._last = torch.tensor([-1], device=self._device)  # given as a number, the head is copied for each row
        self.read = [0] * len(samples)
        """Tokens of each that it has read."""

    def holds(self, samples: Sequence[Sample]) -> bool:
        return len(samples) == len(self._samples) and all(
            one is other for one, other in zip(samples, self._samples, strict=True)
        )

    def feed(self, new: Sequence[Sequence[int]]) -> Tensor:
        """Read more tokens of each; returns the logits after the last of each, shape (rows, words)."""
        if any(self.read):
            logits, self._mask = self._read(new, self.read, self._mask)
        else:
            prompts = list({tuple(row): None for row in new})  # of trials of one instance they are the same: read once
            rows = [prompts.index(tuple(row)) for row in new]
            logits, mask = self._read(prompts, [0] * len(prompts), self._mask[: len(prompts)])
            self._values.batch_select_indices(torch.tensor(rows, device=self._device))
            logits, self._mask = logits[rows], mask[rows]
        self.read = [before + len(row) for before, row in zip(self.read, new, strict=True)]
        return logits

    def _read(self, new: Sequence[Sequence[int]], before: Sequence[int], mask: Tensor) -> tuple[Tensor, Tensor]:
        """The logits after the last token of each row, and the mask of all that was read of them."""
        width, end = max(map(len, new)), self._model.end
        ids = torch.tensor([[end] * (width - len(row)) + list(row) for row in new], device=self._device)
        is_new = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in new], device=self._device)
        mask = torch.cat([mask, is_new], 1)
        logits = self._model.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(torch.tensor(before, device=self._device)[:, None] + is_new.cumsum(1) - 1).clamp(min=0),
            cache=self._values,
            use_cache=True,
            logits_to_keep=self._last,
        ).logits[:, -1]
        return logits.float(), mask
