"""Where to spend samples: how near a batch's update comes to the truth at an equal number of generated tokens.

    python benchmarks/spending.py chain.pt product.pt countdown.pt  ->  benchmarks/results/spending.json

Pools are those of benchmarks/recipes.py --pool, of 32 responses a prompt. A batch takes prompts in random order, each
at the cost of what is drawn of it, until the tokens of 12 prompts x 8 responses of mean length are spent (as near as
whole groups allow). Cosine of its update with the large-sample gradient, made of the other half of all prompts'
responses; gain relative to 12 x 8 with the same base. Clean rewards, and each flipped with probability 0.25 (in the
first draws' decision too, not in the truth). Student's intervals over disjoint blocks of 32 prompts.

Plans: whole groups of G; the first n0 of G and the rest where their rewards differ, as it is and weighed to be
unbiased; the same where the first draws' own update is longer than the median of those that differ (geometry); and
whole groups of those prompts whose 8 earlier responses, which cost nothing, had rewards that differ (history).
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from alignment_search import grpo, pool_of, power, rloo
from torch import Tensor

from gcpo.advantages.first_draws import completion
from gcpo.probe.alignment import relative

_PROMPTS, _BUDGET, _EARLIER = 32, 96, 8


@dataclass(frozen=True)
class Plan:
    """What is drawn of a prompt: the ``first`` of ``G``, and the rest if it is worth it."""

    G: int
    first: int = 0
    unbiased: bool = False
    geometry: bool = False
    history: bool = False

    def drawn(self, r: Tensor, update: float, longest: float) -> int:
        """Of a prompt with rewards (16,), whose first draws' update is so long."""
        if self.history:
            return self.G if differ(r[-_EARLIER:]) else 0
        if not self.first:
            return self.G
        return self.G if differ(r[: self.first]) and (not self.geometry or update > longest) else self.first


PLANS = {
    "whole groups of 8": Plan(8),
    "whole groups of 4": Plan(4),
    "whole groups of 16": Plan(16),
    "first 4 of 8": Plan(8, 4),
    "first 4 of 8, unbiased": Plan(8, 4, unbiased=True),
    "first 2 of 8": Plan(8, 2),
    "first 2 of 8, unbiased": Plan(8, 2, unbiased=True),
    "first 2 of 4": Plan(4, 2),
    "first 4 of 16": Plan(16, 4),
    "first 4 of 8, geometry": Plan(8, 4, geometry=True),
    "history, groups of 8": Plan(8, history=True),
    "history, groups of 4": Plan(4, history=True),
}


def differ(r: Tensor) -> bool:
    return bool(r.amax() > r.amin())


@dataclass(frozen=True)
class Draw:
    """Rewards r, lengths n of scores, both (1, G), as the methods of alignment_search take them."""

    r: Tensor
    n: Tensor


BASES: dict[str, Callable[[Any], Tensor]] = {
    "grpo": grpo,
    "rloo": rloo,
    "gcpo": lambda b: rloo(b) * power(b.n, 1.0),
}


@dataclass(frozen=True)
class Pool:
    """Of P prompts and R responses: features (P, R, F), output layer's, and values (P, R) each."""

    X: Tensor
    S: Tensor
    values: dict[str, Tensor]

    def update(self, p: int, columns: Tensor, r: Tensor, plan: Plan) -> Tensor:
        """What the columns drawn of a prompt add to the update, for each base, (bases, F)."""
        if not differ(r):
            return torch.zeros(len(BASES), self.X.shape[-1]).double()
        b = Draw(r.unsqueeze(0), self.values["n"][p, columns].unsqueeze(0))
        weight = 1 / completion(b.r, plan.first).item() if plan.unbiased else 1.0
        return weight * (torch.cat([base(b) for base in BASES.values()]) @ self.X[p, columns].double())


def batches(P: int, R: int, splits: int, each: int) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """Split, block, prompts in order, columns (P, R / 2) in order."""
    blocks = torch.randperm(P, generator=torch.Generator().manual_seed(99)).tensor_split(P // _PROMPTS)
    for split in range(splits):
        generator = torch.Generator().manual_seed(split)
        here = torch.rand(P, R, generator=generator).argsort(-1)[:, : R // 2]
        for b, block in enumerate(blocks):
            for _ in range(each):
                order = block[torch.randperm(len(block), generator=generator)]
                yield split, b, order, here.gather(1, torch.rand(here.shape, generator=generator).argsort(-1))


def truth(pool: Pool, split: int) -> Tensor:
    """The gradient of the mean reward by the responses that no batch of the split has, (F,)."""
    P, R = pool.values["r"].shape
    there = torch.rand(P, R, generator=torch.Generator().manual_seed(split)).argsort(-1)[:, R // 2 :]
    r = pool.values["r"].gather(1, there)
    A = r - r.mean(-1, keepdim=True)
    g = torch.zeros(pool.X.shape[-1]).double()
    for p in range(P):
        g += A[p] @ pool.X[p, there[p]].double()
    return g


def spend(pool: Pool, plan: Plan, order: Tensor, here: Tensor, rewards: Tensor, longest: float) -> dict[str, Any]:
    """A batch: its update for each base, (bases, F), and what it took."""
    budget, spent, taken = _BUDGET * pool.values["t"].mean().item(), 0.0, 0
    update, completed = torch.zeros(len(BASES), pool.X.shape[-1]).double(), 0
    for p in order.tolist():
        r, columns = rewards[p, here[p]], here[p]
        length = first_update(pool, p, columns, r, plan) if plan.geometry else 0.0
        columns = columns[: plan.drawn(r, length, longest)]
        cost = pool.values["t"][p, columns].sum().item()
        if spent + cost / 2 > budget:
            break
        spent, taken, completed = spent + cost, taken + bool(len(columns)), completed + (len(columns) == plan.G)
        if len(columns):
            update += pool.update(p, columns, r[: len(columns)], plan)
    return {"update": update, "tokens": spent / budget, "prompts": taken, "completed": completed / max(taken, 1)}


def first_update(pool: Pool, p: int, columns: Tensor, r: Tensor, plan: Plan) -> float:
    """Length of the output layer's update by the first draws."""
    b = Draw(r[None, : plan.first], torch.ones(1, plan.first))
    return (rloo(b)[0] @ pool.S[p, columns[: plan.first]].double()).norm().item()


def compare(file: Path, splits: int, each: int) -> dict[str, dict[str, Any]]:
    """Gains by plan and condition."""
    pool = Pool(*pool_of(file, None))
    P, R = pool.values["r"].shape
    coin = torch.rand(P, R, generator=torch.Generator().manual_seed(5)) < 0.25
    noisy = (pool.values["r"] - coin.double()).abs()
    table: dict[str, dict[str, Any]] = {}
    for condition, rewards in {"clean": pool.values["r"], "noisy": noisy}.items():
        geometry = PLANS["first 4 of 8, geometry"]
        first = [first_update(pool, p, torch.arange(R), rewards[p], geometry) for p in range(P)]
        longest = torch.tensor([x for x in first if x > 0]).median().item()
        cosines = {(plan, base): torch.zeros(P // _PROMPTS).double() for plan in PLANS for base in BASES}
        seen: dict[str, list[dict[str, Any]]] = {plan: [] for plan in PLANS}
        truths = [truth(pool, split) for split in range(splits)]
        for split, b, order, here in batches(P, R, splits, each):
            for name, plan in PLANS.items():
                batch = spend(pool, plan, order, here, rewards, longest)
                seen[name].append(batch)
                for base, u in zip(BASES, batch.pop("update"), strict=True):
                    cosines[name, base][b] += u @ truths[split] / (u.norm() * truths[split].norm()).clamp(min=1e-30)
        for name in PLANS:
            spent = {k: sum(x[k] for x in seen[name]) / len(seen[name]) for k in ("tokens", "prompts", "completed")}
            gains = {
                base: {
                    "cosine": float(cosines[name, base].mean()) / (splits * each),
                    "relative": relative(cosines[name, base].numpy(), cosines["whole groups of 8", base].numpy()),
                }
                for base in BASES
            }
            table[f"{name}, {condition}"] = spent | gains
    return table


def shown(gain: dict[str, Any]) -> str:
    low, high = gain["ci95"]
    return f"{100 * gain['value']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def main() -> None:
    """Print a line a plan, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pools", nargs="+", type=Path)
    parser.add_argument("--splits", type=int, default=4)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "spending.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for file in options.pools:
        found[file.stem] = compare(file, options.splits, options.batches)
        for name, row in found[file.stem].items():
            texts = [shown(row[base]["relative"]) for base in BASES]
            spent = f"{row['prompts']:.1f} prompts, {row['tokens']:.2f} of the tokens, {row['completed']:.2f} complete"
            print(" | ".join([file.stem, name, spent, *texts]), flush=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
