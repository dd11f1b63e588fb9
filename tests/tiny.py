"""A character-level Llama of 20,000 random parameters and a data set for it, built in a moment."""

import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

_SPECIAL = ("<pad>", "<eos>", "<unk>")


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = [*_SPECIAL, *(chr(c) for c in range(32, 127)), "\n"]
    backend = Tokenizer(models.WordLevel({c: i for i, c in enumerate(vocabulary)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )


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
