"""Does a baseline from the responses that share a prefix make the gradient less noisy? docs/results/recipe-search.md.

    python benchmarks/prefix_baseline.py --task countdown --json prefix_countdown.json

Before token t, response i of a group has the siblings S_t = {j != i: o_j[:t] = o_i[:t]}. Its baseline there is

    b_t = (sum_{j in S_t} r_j + k b_{t-1}) / (|S_t| + k) where S_t loses someone, else b_{t-1};   b_0 the others' mean

a matter of the prefix and of other responses alone, so A_t = r_i - b_t leaves the gradient unbiased, as RLOO's
A = r_i - b_0 does (k = infinity). Both have the same mean, so their mean squared lengths E|g|^2 differ by noise alone,
and no large sample of the truth is needed: the table has sqrt(E|g_RLOO|^2 / E|g|^2) - 1, what a cosine gains, with
intervals over prompts.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gcpo.experiment.settings import ProbeSettings
from gcpo.experiment.subject import build_task, draw, load_policy, versions
from gcpo.policies.sampling import Sampled, sample
from gcpo.tasks.noise import Noisy

G = 8
PRIORS = (0.3, 1.0, 3.0, 10.0)


def baselines(rewards: Tensor, responses: Sequence[Sequence[int]], T: int, k: float) -> Tensor:
    """b, (G, T), of one group."""
    b = torch.zeros(len(rewards), T)
    for i, own in enumerate(responses):
        now, known = float((rewards.sum() - rewards[i]) / (len(rewards) - 1)), len(rewards) - 1
        for t in range(len(own)):
            there = [float(rewards[j]) for j, o in enumerate(responses) if j != i and o[:t] == own[:t]]
            if len(there) != known:
                now, known = (sum(there) + k * now) / (len(there) + k), len(there)
            b[i, t] = now
    return b


def squared_lengths(model: Any, group: Sampled, advantages: Sequence[Tensor]) -> list[float]:
    """|g|^2 of one group's update, g = mean_i sum_t A_it grad log p(o_it), for each (G, T) of advantages."""
    ids, mask = torch.cat([group.prompt_ids, group.ids], 1), torch.cat([group.prompt_mask, group.mask.long()], 1)
    logits = model(input_ids=ids, attention_mask=mask).logits[:, group.prompt_ids.shape[1] - 1 : -1]
    log_p = logits.log_softmax(-1).gather(-1, group.ids.unsqueeze(-1)).squeeze(-1) * group.mask
    found = []
    for A in advantages:
        g = torch.autograd.grad((log_p * A).sum() / G, list(model.parameters()), retain_graph=True, allow_unused=True)
        found.append(sum(float(part.square().sum()) for part in g if part is not None))
    return found


def main() -> None:
    """Print a table, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="chain")
    parser.add_argument("--model", default="starter")
    parser.add_argument("--prompts", type=int, default=192)
    parser.add_argument("--flip", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(given.seed)
    clean = build_task(ProbeSettings(task=given.task, model=given.model))
    judges = {"clean": clean, "noisy": Noisy(clean, given.flip, given.seed)}
    model, tokenizer = load_policy(given.model, torch.device("cpu"))
    lengths: dict[str, list[list[float]]] = {kind: [] for kind in judges}
    for example in draw(clean, "train", given.prompts, given.seed):
        group = sample(model.eval(), tokenizer, [example.prompt] * G, clean.max_new_tokens)
        said = [ids[there].tolist() for ids, there in zip(group.ids, group.mask, strict=True)]
        for kind, judge in judges.items():
            r = torch.tensor([judge.grade(text, example) for text in group.texts])
            b = [baselines(r, said, group.ids.shape[1], k) for k in (1e9, *PRIORS)]
            lengths[kind].append(squared_lengths(model, group, [r.unsqueeze(1) - x for x in b]))
    result: dict[str, Any] = {"versions": versions(), "prompts": given.prompts}
    rng = np.random.default_rng(0)
    for kind, rows in lengths.items():
        x = np.array(rows)
        draws = [x[rng.integers(0, len(x), len(x))].sum(0) for _ in range(1000)]
        for column, k in enumerate(PRIORS, 1):
            gain = [100 * (np.sqrt(s[0] / s[column]) - 1) for s in (x.sum(0), *draws)]
            low, high = np.percentile(gain[1:], [2.5, 97.5])
            print(f"{given.task} {kind} k = {k:<4g} {gain[0]:+.1f} % ({low:+.1f} to {high:+.1f})")
            result[f"{kind}, k = {k:g}"] = [float(gain[0]), float(low), float(high)]
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
