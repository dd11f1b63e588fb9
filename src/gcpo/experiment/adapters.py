"""LoRA (arXiv 2106.09685) by peft: a few added parameters are trained, and merged into the model at the end."""

from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM

from gcpo.experiment.settings import LoraSettings, UsageError


def with_lora(model: Any, settings: LoraSettings) -> Any:
    """The model with adapters on all its linear layers but the head, if the settings ask for them.

    A head that is tied to the embeddings stays tied, since neither is adapted.

    Raises:
        UsageError: peft is not installed, or finds nothing to adapt in this model.
    """
    if not settings.lora:
        return model
    try:
        import peft
    except ImportError as error:
        raise UsageError(f'lora needs peft, which is not installed ({error}): pip install "gcpo[lora]".') from error
    config = peft.LoraConfig(
        r=settings.lora_rank, lora_alpha=settings.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    try:
        return peft.get_peft_model(model, config)
    except ValueError as error:
        kind = type(model).__name__
        raise UsageError(f"lora finds nothing to adapt in a {kind} ({error}): leave it out.") from error


def merged(model: Any, adapter: Path) -> Any:
    """The model with its adapters merged, so that it loads as any other; they are written to ``adapter`` too."""
    if not hasattr(model, "merge_and_unload"):
        return model
    model.save_pretrained(adapter)
    return model.merge_and_unload()


def restore(model: Any, checkpoint: Path) -> None:
    """Give the model the parameters of a checkpoint: all, or those of its adapters."""
    if hasattr(model, "merge_and_unload"):
        import peft

        peft.set_peft_model_state_dict(model, peft.load_peft_weights(str(checkpoint)))
        return
    dtype = next(model.parameters()).dtype
    model.load_state_dict(AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype).state_dict())
