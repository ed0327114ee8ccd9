"""Language models of random weights, made without a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_language_model(folder: Path, template: str | None = TEMPLATE) -> Path:
    """Write a Llama of a few thousand weights, with a token for each byte, into a folder, in Hugging Face's form."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={sign: place for place, sign in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _written(folder, tokenizer, template, width=32, inner=48, key_heads=2)


def language_model_of_words(folder: Path, words: Sequence[str], seed: int = 0) -> Path:
    """The same with a token for each of these words, wide enough to be trained from scratch in seconds."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    numbers = {word: place for place, word in enumerate(dict.fromkeys(["?", *words]))}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    template = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
    return _written(folder, tokenizer, template, width=64, inner=128, key_heads=4, seed=seed, initializer_range=0.15)


def _written(
    folder: Path,
    tokenizer: Any,
    template: str | None,
    *,
    width: int,
    inner: int,
    key_heads: int,
    seed: int = 0,
    **settings: Any,
) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>")
    fast.chat_template = template
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=width, intermediate_size=inner, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=key_heads, max_position_embeddings=4096, eos_token_id=fast.eos_token_id,
        tie_word_embeddings=True, **settings,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
