"""How well a few layers, sketched, stand for the whole gradient where a run watches its noise (``gcpo.probe.live``).

Of each mixed group: the variance tr Cov of A_i s_i / T_i, the share of a response in GRPO's gradient, by all
parameters and by the chosen ones; Spearman's correlation of the two over groups, three seeds of the sketch.
96 prompts x 8 responses of the starter policy.

    python benchmarks/live_layers.py  ->  benchmarks/results/live_layers.json
"""

import json
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from transformers import AutoModelForCausalLM, AutoTokenizer

from gcpo.policies import resolve
from gcpo.policies.sampling import sample
from gcpo.probe import ResponseGradients, weighted_variance
from gcpo.tasks import get_task

GROUP, PROMPTS, SEEDS = 8, 96, 3
ALL, ENDS = (0, 1, 2, 3), (0, 3)
CHOICES = [  # layer, blocks, numbers a layer (None: exact)
    ("mlp.down_proj", ALL, 1024),
    ("mlp.down_proj", ENDS, 512),
    ("mlp.down_proj", (3,), None),
    ("self_attn.o_proj", ALL, 1024),
    ("self_attn.o_proj", ALL, 256),
    ("self_attn.o_proj", ALL, 100),
    ("self_attn.o_proj", ENDS, 512),
    ("self_attn.o_proj", ENDS, 256),
    ("self_attn.o_proj", (3,), None),
]


def only(layer: str, blocks: tuple[int, ...]) -> Callable[[str], bool]:
    return lambda name: any(name == f"model.layers.{b}.{layer}.weight" for b in blocks)


def measure(task_name: str) -> list[dict[str, Any]]:
    """Rows of one task."""
    path, task = resolve("starter"), get_task(task_name)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    examples = [e for e in task.examples("train", PROMPTS, 0) for _ in range(GROUP)]
    torch.manual_seed(0)
    said = sample(model, tokenizer, [e.prompt for e in examples], task.max_new_tokens)
    rewards = torch.tensor([task.grade(text, e) for text, e in zip(said.texts, examples, strict=True)]).view(-1, GROUP)
    ids = torch.cat([said.prompt_ids, said.ids], 1)
    exists = torch.cat([said.prompt_mask, said.mask.long()], 1)
    mask = torch.cat([torch.zeros_like(said.prompt_mask, dtype=torch.bool), said.mask], 1)
    mixed = rewards.std(1) > 0
    a = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    a = (a / said.mask.sum(1).view(-1, GROUP)).double()

    def variance(chosen: Callable[[str], bool] | None, dim: int | None, seed: int) -> torch.Tensor:
        gram = ResponseGradients(model, chosen).grams(ids, exists, mask, GROUP, dim=dim, seed=seed)
        return weighted_variance(gram, a)[mixed]

    whole, rows = variance(None, None, 0), []
    for layer, blocks, numbers in CHOICES:
        dim = None if numbers is None else numbers * len(blocks)
        seeds = range(1 if dim is None else SEEDS)
        found = [float(spearmanr(whole, variance(only(layer, blocks), dim, s)).statistic) for s in seeds]
        row = {"task": task_name, "groups": int(mixed.sum()), "layer": layer, "blocks": blocks, "numbers": numbers}
        rows.append(row | {"rank_correlation": found})
        print(*row.values(), [round(r, 3) for r in found], flush=True)
    return rows


def main() -> None:
    torch.set_num_threads(1)
    rows = [row for task in ("chain", "product", "countdown") for row in measure(task)]
    versions = {name: version(name) for name in ("torch", "transformers")} | {"python": platform.python_version()}
    result = {"versions": versions, "device": f"{platform.machine()} CPU, 1 thread, float32", "rows": rows}
    output = Path(__file__).parent / "results" / "live_layers.json"
    output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
