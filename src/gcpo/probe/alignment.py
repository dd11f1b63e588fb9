"""Alignment: how close each recipe's mini-batch update points to the true gradient, from one pool of gradients.

P prompts with R responses each, their gradients s (P, R, F) or features with their inner products. Each prompt's
responses are split in two: batches are drawn from one half, the truth is the large-sample gradient of the mean reward
on the other,

    g = mean over prompts and responses of r_i' s_i,    r_i' = n / (n - 1) (r_i - mean r)

so truth and batch share no response (one without a finite reward is in neither). A batch is some prompts with a few
responses each; a recipe makes u = sum A_i s_i of it, and its alignment is cos(u, g). All recipes see the same batches.
g is noisy too, which shrinks all cosines by one factor: read them relative to a reference.

Intervals. The prompts are dealt into blocks, and a batch draws from one block, so blocks are independent (but for g).
The interval of a relative difference is Student's t over the blocks' means: it covers the choice of prompts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gcpo import groups
from gcpo.advantages import rloo
from gcpo.recipes import Recipe
from gcpo.semantics.clustering import connected_components


@dataclass(frozen=True)
class Pool:
    """Sampled responses with their gradients: what batches are drawn from.

    Attributes:
        features: Gradient of each response's log-probability, or features with its inner products.
        rewards: Reward of each.
        inputs: What recipes need, by name: tensors (P, R, ...), or P lists of R texts.
        same: Which responses mean the same, where ``labels`` are to follow from it; None: they are among the inputs.
    """

    features: Float[Tensor, "P R F"]
    rewards: Float[Tensor, "P R"]
    inputs: Mapping[str, Any]
    same: Bool[Tensor, "P R R"] | None = None

    def part(self, rows: Int[Tensor, "B 1"], columns: Int[Tensor, "B G"]) -> dict[str, Any]:
        """Inputs of some responses to some prompts.

        ``same`` need not be transitive: a response that is not among these may not join two that are.
        """
        inputs = {name: _take(value, rows, columns) for name, value in self.inputs.items()}
        if self.same is None:
            return inputs
        same = self.same[rows.unsqueeze(-1), columns.unsqueeze(-1), columns.unsqueeze(-2)]
        return inputs | {"labels": connected_components(same)}


@dataclass(frozen=True)
class Plan:
    """How batches are drawn.

    Attributes:
        prompts: Prompts a batch.
        group_size: Responses a prompt.
        batches: Batches in all.
        blocks: Disjoint sets of prompts, each of at least ``prompts``.
        flip: Probability with which a batch's reward is turned into lowest + highest - reward.
        seed: Of the split, the blocks and the batches.
    """

    prompts: int = 16
    group_size: int = 8
    batches: int = 400
    blocks: int = 8
    flip: float = 0.0
    seed: int = 0


def alignment(
    pool: Pool, recipes: Mapping[str, Recipe], plan: Plan, reference: str = "grpo"
) -> dict[str, dict[str, Any]]:
    """Mean cosine of each recipe's updates with the truth, and its gain over the reference.

    Returns:
        By recipe: ``cosine``, and ``relative`` with ``value`` (0.1 for a tenth more) and ``ci95``; None for what is
        not defined.

    Raises:
        ValueError: The pool is too small for the plan, or the reference is none of the recipes.
    """
    if reference not in recipes:
        raise ValueError(f"the reference must be one of {', '.join(recipes)}, found {reference!r}.")
    means = cosines(pool, recipes, plan)
    return {
        name: {"cosine": float(mean.mean()), "relative": relative(mean, means[reference])}
        for name, mean in means.items()
    }


def by_group_size(pool: Pool, recipe: Recipe, plan: Plan, sizes: Sequence[int]) -> dict[str, dict[str, Any]]:
    """The same for one recipe over group sizes at an equal number of responses a batch, relative to the plan's own.

    Sizes that the pool is too small for are left out.
    """
    responses, P, R = plan.prompts * plan.group_size, *pool.rewards.shape
    shapes = {g: responses // g for g in sorted({*sizes, plan.group_size}) if g <= responses}
    blocks = min(plan.blocks, *(P // prompts for prompts in shapes.values() if prompts <= P // 2))
    plans = {g: replace(plan, prompts=n, group_size=g, blocks=blocks) for g, n in shapes.items()}
    fit = {g: p for g, p in plans.items() if g <= R // 2 and p.prompts <= P // blocks and p.prompts * g == responses}
    means = {g: cosines(pool, {"": recipe}, p)[""] for g, p in fit.items()}
    return {
        f"{fit[g].prompts} x {g}": {"cosine": float(m.mean()), "relative": relative(m, means[plan.group_size])}
        for g, m in means.items()
    }


def cosines(pool: Pool, recipes: Mapping[str, Recipe], plan: Plan) -> dict[str, Float[np.ndarray, " blocks"]]:
    """Mean cosine with the truth in each block of prompts, by recipe."""
    _check(pool, plan)
    generator = torch.Generator().manual_seed(plan.seed)
    order = torch.rand(pool.rewards.shape, generator=generator).argsort(-1)
    here, there = order[:, : order.shape[1] // 2], order[:, order.shape[1] // 2 :]
    truth = _gradient(pool, there)
    found: dict[str, list[list[float]]] = {name: [[] for _ in range(plan.blocks)] for name in recipes}
    for block, rows, columns in _batches(pool, here, plan, generator):
        rewards = _flipped(pool, pool.rewards[rows, columns], plan.flip, generator)
        inputs = pool.part(rows, columns)
        scores = pool.features[rows, columns].flatten(0, 1)
        for name, recipe in recipes.items():
            update = recipe(rewards, **inputs).advantages.flatten().to(scores) @ scores
            found[name][block].append(float(torch.nn.functional.cosine_similarity(update, truth, dim=0)))
    return {name: np.array([np.mean(block) for block in blocks]) for name, blocks in found.items()}


def _gradient(pool: Pool, columns: Int[Tensor, "P n"]) -> Float[Tensor, " F"]:
    rows = torch.arange(len(columns)).unsqueeze(-1)
    r = pool.rewards[rows, columns]
    known = groups.finite(r)
    advantages = rloo(r) / known.sum(-1, keepdim=True).clamp(min=1) / (known.sum(-1) > 1).sum().clamp(min=1)
    return advantages.flatten().to(pool.features) @ pool.features[rows, columns].flatten(0, 1)


def _batches(
    pool: Pool, here: Int[Tensor, "P n"], plan: Plan, generator: torch.Generator
) -> Iterator[tuple[int, Int[Tensor, "B 1"], Int[Tensor, "B G"]]]:
    blocks = torch.randperm(len(pool.rewards), generator=generator).tensor_split(plan.blocks)
    for b in range(plan.batches):
        block = blocks[b % plan.blocks]
        rows = block[torch.randperm(len(block), generator=generator)[: plan.prompts]].unsqueeze(-1)
        places = torch.rand(len(rows), here.shape[1], generator=generator).argsort(-1)[:, : plan.group_size]
        yield b % plan.blocks, rows, here[rows, places]


def _take(value: Any, rows: Tensor, columns: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value[rows, columns]
    return [[value[p][i] for i in chosen] for p, chosen in zip(rows.flatten().tolist(), columns.tolist(), strict=True)]


def _flipped(pool: Pool, rewards: Tensor, flip: float, generator: torch.Generator) -> Tensor:
    wrong = torch.rand(rewards.shape, generator=generator) < flip
    known = pool.rewards[pool.rewards.isfinite()]
    return torch.where(wrong, known.amin() + known.amax() - rewards, rewards)


def relative(mean: Float[np.ndarray, " blocks"], reference: Float[np.ndarray, " blocks"]) -> dict[str, Any]:
    """Gain over a reference in the same blocks, with Student's interval over them."""
    from scipy import stats

    base = reference.mean()
    if not base > 0:
        return {"value": None, "ci95": None}
    gains = (mean - reference) / base
    value, half = gains.mean(), stats.sem(gains) * stats.t.ppf(0.975, len(gains) - 1) if len(gains) > 1 else np.nan
    interval = [float(value - half), float(value + half)] if np.isfinite(half) else None
    return {"value": float(value), "ci95": interval}


def _check(pool: Pool, plan: Plan) -> None:
    P, R = pool.rewards.shape
    if plan.group_size > R // 2:
        raise ValueError(
            f"groups of {plan.group_size} need twice as many responses a prompt, half of them for the truth, found "
            f"{R}: sample more, or make groups smaller."
        )
    if plan.prompts > P // plan.blocks:
        raise ValueError(
            f"{plan.blocks} blocks of at least {plan.prompts} prompts need {plan.blocks * plan.prompts} prompts, "
            f"found {P}: sample more, or make batches smaller."
        )
