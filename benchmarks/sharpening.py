"""How much of what a recipe gains in direction is only being surer: the tables of docs/results/recipe-search.md.

    python benchmarks/sharpening.py --task chain --json sharpening_chain.json

Samples prompts x 8 responses with whole gradients s. J is the gradient of the mean reward on --truth of the prompts;
batches of 16 are drawn from the others. The sharpening direction is the gradient of the mean log-probability of the
policy's own responses, E[log p s], which no reward enters, by the prompts outside the batch. For each recipe, clean
and with verdicts flipped by text: the cosine of its update with J, with sharpening, and with J when both have lost
their part along sharpening. Takes about 5 GB for 256 prompts of the starter policy.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gcpo.experiment.geometry import Geometry
from gcpo.experiment.probe import collect
from gcpo.experiment.settings import ProbeSettings
from gcpo.experiment.subject import build_task, draw, load_policy, poses_chat, versions
from gcpo.recipes import Recipe, recipe
from gcpo.tasks.base import Example
from gcpo.tasks.noise import Noisy

G, PROMPTS, CHUNK = 8, 16, 2**14


def variants() -> dict[str, Recipe]:
    """What is compared, GRPO first."""
    grpo = {name: recipe(name) for name in ("grpo", "rloo", "gcpo")}
    return grpo | {
        "grpo, all damped": recipe("grpo", damping=1.0),
        "grpo, right damped": recipe("grpo", damping=1.0, damping_below=0.0),
        "grpo, wrong damped": recipe("grpo", damping_below=1.0),
        "grpo, wrong boosted": recipe("grpo", damping_below=-1.0),
    }


@dataclass(frozen=True)
class Sample:
    """Responses to P prompts, and the inner products of their gradients.

    Attributes:
        rewards: (P, G), clean.
        texts: The responses.
        norms: (P, G), lengths of the output layer's scores.
        log_probs: (P, G), of whole responses.
        K: (P G, P G), inner products of the scores.
        to_truth: (P G,), inner products with J.
        truth: Length of J.
    """

    rewards: Tensor
    texts: list[list[str]]
    norms: Tensor
    log_probs: Tensor
    K: Tensor
    to_truth: Tensor
    truth: float


def sampled(settings: ProbeSettings, examples: Sequence[Example], truth: int) -> Sample:
    """The last ``truth`` prompts make J, the others the batches."""
    task = build_task(settings)
    model, tokenizer = load_policy(settings.model, torch.device("cpu"))
    chat, geometry = poses_chat(settings, tokenizer), Geometry(settings, tokenizer)
    torch.manual_seed(settings.seed)
    J, features, rewards, texts, norms, log_probs = torch.zeros(()), [], [], [], [], []
    seen = 0
    for pool, _ in collect(model.eval(), tokenizer, geometry, task, examples, settings, chat):
        r = pool.rewards.double()
        if seen < len(examples) - truth:
            features.append(pool.features.flatten(0, 1).bfloat16())
            rewards.append(r)
            texts += pool.inputs["texts"]
            norms.append(pool.inputs["scores"].double().norm(dim=-1))
            log_probs.append(pool.inputs["log_probs"].double())
        else:
            advantages = (r - r.mean(1, keepdim=True)) * G / (G - 1) / (truth * G)
            J = J + advantages.float().flatten() @ pool.features.flatten(0, 1).float()
        seen += len(r)
    s = torch.cat(features)
    K, to_truth = torch.zeros(len(s), len(s), dtype=torch.float64), torch.zeros(len(s), dtype=torch.float64)
    for start in range(0, s.shape[1], CHUNK):  # float32 of all would take twice the memory
        part = s[:, start : start + CHUNK].float()
        K += (part @ part.T).double()
        to_truth += (part @ J[start : start + CHUNK]).double()
    r, norm, log_p = (torch.cat(x) for x in (rewards, norms, log_probs))
    return Sample(r, texts, norm, log_p, K, to_truth, float(J.double().norm()))


def cosines(sample: Sample, draws: Sequence[Tensor], rounds: int) -> dict[str, Tensor]:
    """Mean over batches of (cosine with J, with sharpening, with J without sharpening), by recipe."""
    generator = torch.Generator().manual_seed(0)
    P = len(sample.rewards)
    place = torch.arange(P * G).view(P, G)
    surer = sample.log_probs - sample.log_probs.mean(1, keepdim=True)
    found: dict[str, list[Tensor]] = {name: [] for name in variants()}
    for k in range(rounds):
        for rows in torch.randperm(P, generator=generator)[: P - P % PROMPTS].view(-1, PROMPTS):
            e = surer.clone()
            e[rows] = 0
            e = e.flatten()
            i, ee, Je = place[rows].flatten(), e @ sample.K @ e, sample.to_truth @ e
            for name, method in variants().items():
                out = method(draws[k % len(draws)][rows], scores=sample.norms[rows].unsqueeze(-1))
                w = out.advantages.double().flatten()
                uu, uJ, ue = w @ sample.K[i][:, i] @ w, w @ sample.to_truth[i], w @ (sample.K[i] @ e)
                rest = (uu - ue**2 / ee).sqrt() * (sample.truth**2 - Je**2 / ee).sqrt()
                of = uJ / (uu.sqrt() * sample.truth), ue / (uu * ee).sqrt(), (uJ - ue * Je / ee) / rest
                found[name].append(torch.stack(of))
    return {name: torch.stack(values).mean(0) for name, values in found.items()}


def main() -> None:
    """Print a table, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="chain")
    parser.add_argument("--model", default="starter")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--truth", type=int, default=384)
    parser.add_argument("--flip", type=float, default=0.2)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = ProbeSettings(
        task=given.task, model=given.model, groups=given.prompts + given.truth, responses=G, group_size=G // 2,
        features=0, exact=False, blocks=2, batch_prompts=8, seed=given.seed,
    )  # fmt: skip
    task = build_task(settings)
    examples = draw(task, "train", settings.groups, given.seed)
    sample = sampled(settings, examples, given.truth)
    judges = [Noisy(task, given.flip, seed) for seed in range(given.rounds)]
    noisy = [
        torch.tensor([[j.grade(t, e) for t in ts] for ts, e in zip(sample.texts, examples, strict=False)]).double()
        for j in judges
    ]
    everyone = (sample.log_probs - sample.log_probs.mean(1, keepdim=True)).flatten()
    along = float(sample.to_truth @ everyone / ((everyone @ sample.K @ everyone).sqrt() * sample.truth))
    print(f"{given.task}: accuracy {float(sample.rewards.mean()):.3f}, cosine of J with sharpening {along:.2f}")
    result = {"versions": versions(), "accuracy": float(sample.rewards.mean()), "cosine of J with sharpening": along}
    for kind, draws in (("clean", [sample.rewards]), ("noisy", noisy)):
        found = cosines(sample, draws, given.rounds)
        base = found["grpo"]
        for name, (with_J, sharp, rest) in found.items():
            print(
                f"{kind} {name:20} J {float(with_J):.4f} ({100 * float(with_J / base[0] - 1):+.1f} %)   sharpening "
                f"{float(sharp):+.3f}   J without {float(rest):.4f} ({100 * float(rest / base[2] - 1):+.1f} %)"
            )
        result[kind] = {name: [float(x) for x in values] for name, values in found.items()}
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
