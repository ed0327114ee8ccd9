"""A language model that is trained: frozen weights of a GGUF file or a folder, and a LoRA adapter (arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Sequence
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

    All is in bfloat16, which is twice as fast on CPUs that have it; the optimiser keeps a copy in float32.

    Attributes:
        model: the PEFT model.
        tokenizer: its tokenizer.
        end: the token that ends an answer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.end: int = tokenizer.eos_token_id

    @classmethod
    def load(cls, base: Path, adapter: Path | None = None, lora: Lora | None = None) -> Self:
        """Load a base model, with an adapter that was saved or a new one.

        Raises:
            ValueError: it has no chat template.
        """
        from peft import LoraConfig, PeftModel, get_peft_model
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        is_gguf = base.suffix == ".gguf"
        where: dict[str, Any] = {"gguf_file": base.name} if is_gguf else {}
        folder = base.parent if is_gguf else base
        tokenizer = AutoTokenizer.from_pretrained(folder, **where)
        if not tokenizer.chat_template:
            raise ValueError(f"{base} has no chat template, so it is not known how it reads a chat: take an instruct model")
        whole: dict[str, Any] = {"quantization_config": GgufConfig(dequantize=True)} if is_gguf else {}
        weights = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, **where, **whole)
        if adapter is not None:
            return cls(
                PeftModel.from_pretrained(weights, adapter, is_trainable=True, autocast_adapter_dtype=False), tokenizer
            )
        lora = lora or Lora()
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            target_modules=list(lora.modules),
            layers_to_transform=list(range(lora.first_layer, weights.config.num_hidden_layers)),
        )
        return cls(get_peft_model(weights, config, autocast_adapter_dtype=False), tokenizer)

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

    def logprobs(self, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        """Log-probabilities of all tokens of the answers, sample by sample, and the entropy at each place, in nats.

        The head is computed at these places alone: over all words of the vocabulary it is half of the cost.
        """
        width = max(len(sample.ids) for sample in samples)
        ids = torch.tensor([s.ids + [self.end] * (width - len(s.ids)) for s in samples])  # to the right: it is not seen
        network = self.model.get_base_model()
        hidden = network.model(input_ids=ids, use_cache=False).last_hidden_state
        places = [(row, at) for row, sample in enumerate(samples) for at, _ in sample.places()]
        rows, columns = torch.tensor(places).T
        logits = network.lm_head(hidden[rows, columns]).float().log_softmax(-1)
        written = ids[rows, columns + 1]
        return logits.gather(1, written[:, None])[:, 0], -(logits.exp() * logits).sum(-1)

    def parameters(self) -> list[Tensor]:
        """The weights of the adapter."""
        return [weight for weight in self.model.parameters() if weight.requires_grad]

    def save(self, folder: Path) -> None:
        """Write the adapter, as PEFT reads it."""
        self.model.save_pretrained(folder)


class Optimizer:
    """AdamW over a copy in float32 of weights in bfloat16, so that small steps are not rounded away."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self._weights = list(weights)
        self._copies = [weight.detach().float().clone() for weight in self._weights]
        self._adam = torch.optim.AdamW(self._copies, weight_decay=0.0)

    def step(self, learning_rate: float) -> None:
        """Take a step along the gradients of the weights, cut to a length of 1, and clear them."""
        for group in self._adam.param_groups:
            group["lr"] = learning_rate
        for copy, weight in zip(self._copies, self._weights, strict=True):
            copy.grad = None if weight.grad is None else weight.grad.float()
            weight.grad = None
        torch.nn.utils.clip_grad_norm_(self._copies, 1.0)
        self._adam.step()
        with torch.no_grad():
            for copy, weight in zip(self._copies, self._weights, strict=True):
                weight.copy_(copy)

    def state(self) -> dict[str, Any]:
        """What it takes to go on where it was."""
        return {"copies": self._copies, "adam": self._adam.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        for copy, saved in zip(self._copies, state["copies"], strict=True):
            copy.copy_(saved)
        self._adam.load_state_dict(state["adam"])
        with torch.no_grad():
            for copy, weight in zip(self._copies, self._weights, strict=True):
                weight.copy_(copy)
