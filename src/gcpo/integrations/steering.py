"""What the integrations share: from rewards, texts and vectors of any host to a recipe's outcome and its metrics."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gcpo.recipes import Outcome, Recipe
from gcpo.semantics import TextEmbedder, answer_labels, check_equivalence, cluster_by_cosine, extract_answer
from gcpo.signals import SIGNALS, primary


def needed(recipe: Recipe, also: Sequence[str] = (), equivalence: str = "folded") -> set[str]:
    """Inputs that a host must bring for a recipe and for signals that are only logged."""
    needs = primary(name for needs in (recipe.needs, *(SIGNALS[name].needs for name in also)) for name in needs)
    by_embeddings = "labels" in needs and check_equivalence(equivalence) is not None
    return needs | {"embeddings"} if by_embeddings else needs


def total(per_function: Float[Tensor, "N K"], weights: Float[Tensor, " K"]) -> Float[Tensor, " N"]:
    """The weighted sum of the rewards a response has, NaN where it has none."""
    rewards = (per_function * weights.to(per_function.device)).nansum(dim=1)
    return rewards.masked_fill(per_function.isnan().all(dim=1), torch.nan)


def measure_texts(
    embedder: TextEmbedder, texts: Sequence[str], wanted: Collection[str], max_points: int, steps: str = "auto"
) -> dict[str, Tensor]:
    """Those of ``embeddings`` (N, D), and ``points`` (N, S, D) with ``point_mask``, that are wanted of N texts.

    Args:
        embedder: Where they come from.
        texts: The responses.
        wanted: Names of inputs of signals; others than these are passed over.
        max_points: S.
        steps: What a step of a response is, one of ``STEPS``.
    """
    measured = {}
    if "embeddings" in wanted:
        measured["embeddings"] = embedder.embed(texts)
    if "points" in wanted:
        points, point_mask = embedder.embed_steps(texts, max_points, steps)
        measured |= {"points": points, "point_mask": point_mask}
    return measured


def meanings(
    texts: Sequence[str],
    inputs: dict[str, Tensor],
    G: int,
    answer_fn: Callable[[str], str | None] = extract_answer,
    equivalence: str = "folded",
) -> Int[Tensor, "B G"]:
    """Which responses of a group mean the same: by their answers, or by their embeddings.

    Args:
        texts: The B * G responses, groups contiguous.
        inputs: With ``embeddings`` (B, G, D), if the equivalence is ``cosine:T``.
        G: Responses a group.
        answer_fn: From a text to its final answer, None if it has none.
        equivalence: When two of them mean the same.
    """
    threshold = check_equivalence(equivalence)
    if threshold is None:
        return answer_labels([answer_fn(text) for text in texts], G, equivalence)
    return cluster_by_cosine(inputs["embeddings"], threshold)


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
    needs = set() if signals is not None else needed(recipe, also, equivalence)
    G = rewards.shape[1]
    if "labels" in needs:
        inputs = inputs | {"labels": meanings(texts, inputs, G, answer_fn, equivalence).to(rewards.device)}
    grouped = [list(texts[i : i + G]) for i in range(0, len(texts), G)] if "texts" in needs else None
    return recipe(rewards, **inputs, texts=grouped, mask=mask, also=also, signals=signals), inputs


def metrics_of(outcome: Outcome, present: Bool[Tensor, "B G"] | None = None) -> dict[str, float]:
    """The numbers every host logs; a signal is that of the groups it was made for, where it is not NaN.

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
        **{f"gcpo/signal/{name}": value.nanmean() for name, value in outcome.signals.items()},
    }
    return {name: tensor.item() for name, tensor in metrics.items() if not tensor.isnan()}


@contextmanager
def unchanged(lists: dict[str, list[Any]]) -> Iterator[None]:
    """Within, lists may be added to, as a host logs its metrics; after it they are as before."""
    before = {name: list(values) for name, values in lists.items()}
    yield
    lists.clear()
    lists.update(before)


__all__ = ["consider", "meanings", "measure_texts", "metrics_of", "needed", "total", "unchanged"]
