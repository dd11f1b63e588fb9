"""A character-level Llama of 20,000 random parameters and a data set for it, built in a moment."""

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM

from gcpo.policies.pretrain import build_tokenizer as tokenizer

__all__ = ["dataset", "model", "spread", "tokenizer"]


def model(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    tokens = tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        pad_token_id=tokens.pad_token_id,
        eos_token_id=tokens.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def dataset(n: int = 8) -> Dataset:
    return Dataset.from_list([{"prompt": f"{i}+{i + 1}="} for i in range(n)])


def spread(completions: list[str], **_: object) -> list[float]:
    """A reward in [0, 1] that differs between random responses: the share of lower-case letters."""
    return [sum(c.islower() for c in text) / max(len(text), 1) for text in completions]
