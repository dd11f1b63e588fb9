"""Whether a tokenizer and a model speak of the same tokens."""

from typing import Any


def check_vocabulary(model: Any, tokenizer: Any) -> None:
    """Make sure that the model has an embedding for every token; it may have more, as padding to a round number.

    Raises:
        ValueError: It has not, and would fail in the middle of a batch.
    """
    last, rows = max(tokenizer.get_vocab().values()), model.get_input_embeddings().num_embeddings
    if last >= rows:
        raise ValueError(
            f"the model must have an embedding for every token, found {rows} for tokens up to number {last}: use the "
            "tokenizer that belongs to the model, or call model.resize_token_embeddings(len(tokenizer)) and save both."
        )
