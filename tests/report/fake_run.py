"""A made-up run directory that looks like a real one: a small model that learns two-digit sums."""

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

SIGNALS = ("semantic_entropy", "cosine_dispersion", "barycentric_transport", "reward_dispersion")


def write_run(
    directory: Path,
    steps: int = 60,
    groups_per_step: int = 4,
    size: int = 8,
    seed: int = 0,
    recipe: str = "gcpo",
    recorded_every: int = 1,
) -> Path:
    """Write a finished run into ``directory`` and return it."""
    draw = random.Random(seed)
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "command": "train",
        "recipe": recipe,
        "task": "two-digit-sums",
        "model": "tiny-random-qwen2",
        "data": {"train": "builtin", "size": 4096},
        "seed": seed,
        "output": str(directory.name),
        "trainer": {"max_steps": steps, "learning_rate": 1e-5, "num_generations": size},
        "versions": {"gcpo": "0.1.0", "torch": "2.9.0"},
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    groups = [[_group(draw, step, steps, g, size) for g in range(groups_per_step)] for step in range(1, steps + 1)]
    _write_lines(directory / "metrics.jsonl", (_metrics(draw, step, row) for step, row in enumerate(groups, 1)))
    _write_lines(directory / "groups.jsonl", (group for row in groups[::recorded_every] for group in row))
    summary = {
        "status": "finished",
        "before": {"accuracy": 0.361, "ci95": [0.32, 0.404], "n": 512},
        "after": {"accuracy": 0.553, "ci95": [0.51, 0.596], "n": 512},
        "change": {"accuracy": 0.192, "ci95": [0.15, 0.234]},
        "steps": steps,
        "seconds": 3.1 * steps,
    }
    (directory / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return directory


def _write_lines(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _group(draw: random.Random, step: int, steps: int, number: int, size: int) -> dict[str, Any]:
    a, b = draw.randint(10, 99), draw.randint(10, 99)
    skill = min(max(0.3 + 0.4 * step / steps + draw.gauss(0, 0.35), 0.0), 1.0)
    answers = [a + b if draw.random() < skill else a + b + draw.choice([-10, -1, 1, 10]) for _ in range(size)]
    rewards = [float(answer == a + b) for answer in answers]
    mean = sum(rewards) / size
    spread = math.sqrt(mean * (1 - mean))
    labels = [list(dict.fromkeys(answers)).index(answer) for answer in answers]
    entropy = -sum(share * math.log(share) for share in (labels.count(k) / size for k in set(labels)))
    dispersion = abs(0.12 * entropy + draw.gauss(0, 0.03))
    return {
        "step": step,
        "group": number,
        "prompt": f"What is {a} + {b}? Think step by step and end with the number.",
        "answer": str(a + b),
        "completions": [_completion(draw, a, b, answer) for answer in answers],
        "rewards": rewards,
        "advantages": [(reward - mean) / (spread + 1e-4) for reward in rewards],
        "labels": labels,
        "signals": dict(
            zip(SIGNALS, (entropy, dispersion, dispersion**0.5 + draw.gauss(0, 0.05), spread), strict=True)
        ),
        "weight": 1 / (1 + math.exp(entropy - 1)),
        "variance": spread * math.exp(draw.gauss(0, 0.3)),
        "dead": spread == 0,
        "map": [[k + draw.gauss(0, 0.2), k % 2 + draw.gauss(0, 0.2)] for k in labels]
        if len(set(labels)) > 1
        else [[0, 0]] * size,
    }


def _completion(draw: random.Random, a: int, b: int, answer: int) -> str:
    tens, ones = a // 10 * 10 + b // 10 * 10, a % 10 + b % 10
    steps = [
        f"First the tens: {a // 10 * 10} + {b // 10 * 10} = {tens}.",
        f"Then the ones: {a % 10} + {b % 10} = {ones}.",
    ]
    return "\n".join([*steps[: draw.randint(0, 2)], f"Together that gives {answer}.", f"#### {answer}"])


def _metrics(draw: random.Random, step: int, groups: list[dict[str, Any]]) -> dict[str, Any]:
    rewards = [reward for group in groups for reward in group["rewards"]]
    weights = [group["weight"] for group in groups]
    mean = sum(rewards) / len(rewards)
    return {
        "step": step,
        "time": 3.1 * step,
        "loss": draw.gauss(0, 0.02),
        "grad_norm": abs(draw.gauss(0.6, 0.15)) if step % 7 else None,
        "reward/mean": mean,
        "reward/std": math.sqrt(mean * (1 - mean)),
        "accuracy": mean,
        "gcpo/dead_groups": sum(group["dead"] for group in groups) / len(groups),
        "gcpo/weight/mean": sum(weights) / len(weights),
        "gcpo/weight/min": min(weights),
        "gcpo/weight/max": max(weights),
        **{f"gcpo/signal/{name}": sum(group["signals"][name] for group in groups) / len(groups) for name in SIGNALS},
        "gcpo/overhead_s": abs(draw.gauss(0.12, 0.02)),
        "completions/mean_length": 40 + 10 * math.sin(step / 9) + draw.gauss(0, 3),
        "learning_rate": 1e-5,
        "step_time": 3.1 + abs(draw.gauss(0, 0.3)),
    }
