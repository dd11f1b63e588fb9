"""What the integrations share: from rewards, texts and vectors of any host to a recipe's outcome and its metrics."""

from collections.abc import Callable, Collection, Mapping, Sequence

from jaxtyping import Bool, Float
from torch import Tensor

from gcpo.recipes import Outcome, Recipe
from gcpo.semantics import TextEmbedder, answer_labels, extract_answer
from gcpo.signals import SIGNALS, primary


def needed(recipe: Recipe, also: Sequence[str] = ()) -> set[str]:
    """Inputs that a host must bring for a recipe and for signals that are only logged."""
    return primary(name for needs in (recipe.needs, *(SIGNALS[name].needs for name in also)) for name in needs)


def measure_texts(
    embedder: TextEmbedder, texts: Sequence[str], wanted: Collection[str], max_points: int
) -> dict[str, Tensor]:
    """Those of ``embeddings`` (N, D), and ``points`` (N, S, D) with ``point_mask``, that are wanted of N texts."""
    measured = {}
    if "embeddings" in wanted:
        measured["embeddings"] = embedder.embed(texts)
    if "points" in wanted:
        points, point_mask = embedder.embed_steps(texts, max_points)
        measured |= {"points": points, "point_mask": point_mask}
    return measured


def consider(
    recipe: Recipe,
    rewards: Float[Tensor, "B G"],
    inputs: dict[str, Tensor],
    texts: Sequence[str],
    *,
    also: Sequence[str] = (),
    answer_fn: Callable[[str], str | None] = extract_answer,
    equivalence: str = "folded",
    mask: Bool[Tensor, "B G"] | None = None,
    signals: Mapping[str, Float[Tensor, " B"]] | None = None,
) -> tuple[Outcome, dict[str, Tensor]]:
    """A recipe's outcome for a batch of groups, and the inputs it was made of, labels with them where needed.

    Args:
        recipe: The recipe.
        rewards: One a response.
        inputs: What was measured, (B, G, ...) each.
        texts: The B * G responses, groups contiguous; looked at only where labels or texts are needed.
        also: Further signals to compute.
        answer_fn: From a text to its final answer, None if it has none.
        equivalence: When two answers mean the same.
        mask: Which responses count; None for all.
        signals: All signals, where they were computed elsewhere; None where they were not.
    """
    needs, G = set() if signals is not None else needed(recipe, also), rewards.shape[1]
    if "labels" in needs:
        labels = answer_labels([answer_fn(text) for text in texts], G, equivalence)
        inputs = inputs | {"labels": labels.to(rewards.device)}
    grouped = [list(texts[i : i + G]) for i in range(0, len(texts), G)] if "texts" in needs else None
    return recipe(rewards, **inputs, texts=grouped, mask=mask, also=also, signals=signals), inputs


def metrics_of(outcome: Outcome, present: Bool[Tensor, "B G"] | None = None) -> dict[str, float]:
    """The numbers every host logs.

    Args:
        outcome: Of the batch.
        present: Where there is a response, with or without a reward; None for everywhere.
    """
    weights = outcome.weights[outcome.live] if outcome.live.any() else outcome.weights
    missed = ~outcome.counted if present is None else ~outcome.counted[present]
    metrics = {
        "gcpo/dead_groups": 1 - outcome.live.float().mean(),
        "gcpo/masked_responses": missed.float().mean(),
        "gcpo/weight/mean": weights.mean(),
        "gcpo/weight/min": weights.min(),
        "gcpo/weight/max": weights.max(),
        **{f"gcpo/signal/{name}": value.mean() for name, value in outcome.signals.items()},
    }
    return {name: tensor.item() for name, tensor in metrics.items()}


__all__ = ["consider", "measure_texts", "metrics_of", "needed"]
