"""A language model that is trained: frozen weights of a GGUF file or a folder, and a LoRA adapter (2106.09685)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from icrl_graph.meta_rl.pytorch import Tensor, torch
from icrl_graph.meta_rl.samples import Recorder, Sample
from icrl_graph.state.episode import Message


@dataclass(frozen=True, kw_only=True)
class Lora:
    """The form of an adapter."""

    rank: int = 16
    alpha: int = 32
    """Its product is scaled by alpha / rank."""
    modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    first_layer: int = 10
    """The layers below it stay as they are: nothing need be computed backwards through them."""


class LanguageModel:
    """A causal language model with its tokenizer and chat template.

    Attributes:
        model: the PEFT model.
        tokenizer: its tokenizer.
        end: the token that ends an answer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.end: int = tokenizer.eos_token_id

    @classmethod
    def load(
        cls, base: Path, adapter: Path | None = None, lora: Lora | None = None, *, dtype: Any = torch.float32
    ) -> Self:
        """Load a base model, with an adapter that was saved or a new one.

        Args:
            base: a GGUF file, or a folder of Hugging Face's form.
            adapter: the folder of one that was saved.
            lora: the form of a new one.
            dtype: of the frozen weights, and of what is computed; an adapter is always of float32.

        Raises:
            ValueError: it has no chat template, or the model or the adapter is not a whole one.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        is_gguf = base.suffix == ".gguf"
        where: dict[str, Any] = {"gguf_file": base.name} if is_gguf else {}
        whole: dict[str, Any] = {"quantization_config": GgufConfig(dequantize=True)} if is_gguf else {}
        folder = base.parent if is_gguf else base
        with _quiet():
            with _named(base, "model"):
                tokenizer = AutoTokenizer.from_pretrained(folder, **where)
            check_template(tokenizer, base)
            with _named(base, "model"):
                weights = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **where, **whole)
            return cls(_adapted(weights, adapter, lora or Lora()), tokenizer)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; marks of the template are one token each."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def render(self, messages: Sequence[Message]) -> str:
        """The text of a prompt, up to where the answer begins."""
        text: str = self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        return text

    def recorder(self) -> Recorder:
        """Records a trial of this model."""
        return Recorder(self.encode, self.render)

    def text(self, ids: Sequence[int]) -> str:
        """The text of an answer's tokens, without what ends it."""
        text: str = self.tokenizer.decode([token for token in ids if token != self.end])
        return text

    def end_text(self) -> str:
        """What ends an answer, as text."""
        text: str = self.tokenizer.decode([self.end])
        return text

    def logprobs(self, samples: Sequence[Sample]) -> Tensor:
        """Log-probabilities of all words of the vocabulary at each token of the answers, sample by sample, in nats.

        The head is computed at these places alone: over all places it is half of the cost. What all of them begin with,
        such as the prompt of trials of one instance, is read once.
        """
        from transformers import DynamicCache

        network = self.model.get_base_model()
        places = [(row, at) for row, sample in enumerate(samples) for at, _ in sample.places()]
        shared = min(common_length([sample.ids for sample in samples]), *(at for _, at in places))
        cache = DynamicCache()
        if shared:
            network.model(input_ids=torch.tensor([samples[0].ids[:shared]]), cache=cache, use_cache=True)
            cache.batch_repeat_interleave(len(samples))
        rests = [sample.ids[shared:] for sample in samples]
        width = max(map(len, rests))
        ids = torch.tensor([rest + [self.end] * (width - len(rest)) for rest in rests])  # to the right: it is not seen
        hidden = network.model(input_ids=ids, cache=cache, use_cache=True).last_hidden_state
        rows, columns = torch.tensor(places).T
        return network.lm_head(hidden[rows, columns - shared]).float().log_softmax(-1)

    def parameters(self) -> list[Tensor]:
        """The weights of the adapter."""
        return [weight for weight in self.model.parameters() if weight.requires_grad]

    def save(self, folder: Path) -> None:
        """Write the adapter, as PEFT reads it."""
        self.model.save_pretrained(folder, save_embedding_layers=False)  # they are frozen


def common_length(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with in common."""
    return next((at for at, tokens in enumerate(zip(*rows, strict=False)) if len({*tokens}) > 1), min(map(len, rows)))


def fast_dtype() -> Any:
    """What this processor trains fastest in: bfloat16 where it has instructions for that, else float32."""
    can: Any = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of PyTorch don't say
    return torch.bfloat16 if can.get("amx_bf16") or can.get("avx512_bf16") else torch.float32


def check_template(tokenizer: Any, model: Any) -> None:
    """Raise `ValueError` if the tokenizer of a model has no chat template."""
    if not tokenizer.chat_template:
        raise ValueError(
            f"{model} has no chat template, so it is not known how it reads a chat: take an instruct model"
        )


def _adapted(weights: Any, adapter: Path | None, lora: Lora) -> Any:
    """A model with an adapter that was saved, or a new one."""
    from peft import LoraConfig, PeftModel, get_peft_model

    if adapter is not None:
        with _named(adapter, "adapter"):
            return PeftModel.from_pretrained(weights, adapter, is_trainable=True)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=list(lora.modules),
        layers_to_transform=list(range(lora.first_layer, weights.config.num_hidden_layers)),
    )
    return get_peft_model(weights, config)


@contextmanager
def _named(path: Path, kind: str) -> Iterator[None]:
    """Errors of the libraries that read a file, of many types, as one that names it."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{path} can't be read as a whole {kind}: {type(error).__name__}: {reason:.200}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars of weights that are loaded, and no word of peft's on what it will have to call otherwise one day."""
    from transformers.utils import logging

    had_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            yield
    finally:
        if had_bars:
            logging.enable_progress_bar()
