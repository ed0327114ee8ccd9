"""What was trained, in the forms of others: an adapter for llama.cpp, whole weights, records for other trainers.

`gguf` and `whole` write files, `verl_records` are plain data; the chat of a trial is `Trial.chat`.
"""

from __future__ import annotations

import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icrl_graph.meta_rl.language_model import LanguageModel
from icrl_graph.meta_rl.trials import Trial
from icrl_graph.models.gguf import BASE_HASH

_NAMES = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}
_NAMES |= {"gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}


def gguf(model: LanguageModel, path: Path, *, base_name: str = "", base_hash: str = "", license: str = "") -> None:
    """Write the adapter of a model of the Llama family as llama.cpp reads it, in float16.

    Args:
        model: what was trained.
        path: of the file; it is whole or not there.
        base_name: what it was trained on.
        base_hash: the sha256 of the GGUF file that it was trained on, so that no other one is taken for it.
        license: such as "apache-2.0".

    Raises:
        ValueError: it is no Llama, or weights are adapted that have no name at llama.cpp.
    """
    from gguf import GGUFWriter

    check_llama(model)
    unfinished = path.with_suffix(".unfinished")
    writer = GGUFWriter(unfinished, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    lora = model.model.peft_config["default"]
    writer.add_float32("adapter.lora.alpha", float(lora.lora_alpha))
    for name, value in ((BASE_HASH, base_hash), ("general.base_model.0.name", base_name), ("general.license", license)):
        if value:
            writer.add_string(name, value)
    for name, weight in _tensors(model).items():
        writer.add_tensor(name, np.ascontiguousarray(weight, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(unfinished, path)


def check_llama(model: LanguageModel) -> None:
    """Raise `ValueError` for a model whose adapter can't be written as GGUF."""
    if (kind := model.model.get_base_model().config.model_type) != "llama":
        raise ValueError(f"only adapters of Llama models are written as GGUF, got one of {kind!r}")


def _tensors(model: LanguageModel) -> dict[str, NDArray[np.float32]]:
    """The weights of an adapter by their names at llama.cpp."""
    from peft import get_peft_model_state_dict

    config, found = model.model.get_base_model().config, dict[str, NDArray[np.float32]]()
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in sorted(get_peft_model_state_dict(model.model, save_embedding_layers=False).items()):
        parts = name.split(".")  # base_model.model.model.layers.N.self_attn.q_proj.lora_A.weight
        module, kind = parts[-3], parts[-2]
        if module not in _NAMES or "layers" not in parts:
            raise ValueError(f"llama.cpp has no name for the adapted weights {name!r}; choose from {', '.join(_NAMES)}")
        array: NDArray[np.float32] = weight.detach().float().numpy()
        if kind == "lora_B" and module in heads:
            array = _rotary_order(array, heads[module])
        found[f"blk.{parts[parts.index('layers') + 1]}.{_NAMES[module]}.weight.{kind.lower()}"] = array
    return found


def _rotary_order(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """The rows of queries and keys as llama.cpp has them: it rotates neighbours, transformers halves of a head."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, rows.shape[1])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def whole(model: LanguageModel, folder: Path) -> None:
    """Write the base with the adapter merged into it, and its tokenizer: a folder of safetensors.

    What is trained stays as it was.
    """
    deepcopy(model.model).merge_and_unload().save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)


def verl_records(trial: Trial, advantages: NDArray[np.float64] | None = None) -> list[dict[str, Any]]:
    """What verl's AgentLoopOutput holds, for each sample of a trial: from its first answer on it is the response.

    Args:
        trial: as it was played.
        advantages: of its episodes; told by token under "advantages", 0 for what was read.
    """
    records = []
    for sample in trial.samples:
        start = sample.answers[0].start
        length = len(sample.ids) - start
        mask, logprobs, gains = [0] * length, [0.0] * length, [0.0] * length
        for answer in sample.answers:
            for place, at in enumerate(range(answer.start - start, answer.stop - start)):
                mask[at] = 1
                logprobs[at] = answer.logprobs[place] if answer.logprobs else 0.0
                gains[at] = 0.0 if advantages is None else float(advantages[answer.episode])
        records.append(
            {
                "prompt_ids": sample.ids[:start],
                "response_ids": sample.ids[start:],
                "response_mask": mask,
                "response_logprobs": logprobs,
                "reward_score": float(sum(trial.returns)),
                "extra_fields": {"instance": trial.instance, "returns": list(trial.returns)},
                **({} if advantages is None else {"advantages": gains}),
            }
        )
    return records
