"""A made-up probe directory: dispersion knows the variance of the gradient, entropy half of it, noise nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gcpo.probe.tracking import Bootstrap, gap, spread_at_equal, tracking_table

SIGNALS = ("semantic_entropy", "cosine_dispersion", "reward_dispersion", "noise")
TARGETS = tuple(f"{kind}_variance/{which}" for kind in ("score", "weighted") for which in ("same", "fresh"))
RECIPES = ("grpo", "gcpo-cd", "rloo")


def write_probe(directory: Path, prompts: int = 24, size: int = 4, responses: int = 12, seed: int = 0) -> Path:
    """Write a finished probe into ``directory`` and return it."""
    draw = np.random.default_rng(seed)
    directory.mkdir(parents=True, exist_ok=True)
    rewards = (draw.random((prompts, responses)) < draw.random((prompts, 1))).astype(float)
    signals, targets = _measured(draw, rewards, size)
    config = {
        "command": "probe",
        "task": "chain",
        "model": "starter",
        "recipe": "gcpo-cd",
        "groups": prompts,
        "group_size": size,
        "responses": responses,
        "versions": {"torch": "2.9.0"},
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (directory / "metrics.jsonl").touch()
    _write(directory / "tracking.json", _tracking(signals, targets, Bootstrap.draw(prompts, 100, seed)))
    _write(directory / "alignment.json", _alignment(draw))
    rows = [
        {
            "prompt": f"{i}+1=?",
            "rewards": rewards[i].tolist(),
            "signals": {name: float(value[i]) for name, value in signals.items()},
            "targets": {name: float(value[i]) for name, value in targets.items()},
        }
        for i in range(prompts)
    ]
    (directory / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    _write(
        directory / "summary.json",
        {"status": "finished", "prompts": prompts, "accuracy": float(rewards.mean()), "dead": 0.25},
    )
    return directory


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def _measured(
    draw: np.random.Generator, rewards: np.ndarray, size: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    variance, noise = draw.lognormal(size=(2, len(rewards)))
    spread = rewards[:, :size].std(1)
    signals = (np.round(variance).clip(max=3), variance**0.5, spread, noise)
    targets = (
        variance,
        variance * draw.lognormal(sigma=0.5, size=len(rewards)),
        variance * spread,
        variance * rewards.std(1),
    )
    return dict(zip(SIGNALS, signals, strict=True)), dict(zip(TARGETS, targets, strict=True))


def _tracking(signals: dict[str, np.ndarray], targets: dict[str, np.ndarray], bootstrap: Bootstrap) -> dict[str, Any]:
    entropy, dispersion = signals["semantic_entropy"], signals["cosine_dispersion"]
    table: dict[str, Any] = tracking_table(signals, targets, bootstrap)
    table["anisotropic_gap"] = {"signal": "cosine_dispersion"} | {
        which: {
            "difference": gap(dispersion, entropy, targets[f"score_variance/{which}"], bootstrap),
            "spread_at_equal_entropy": spread_at_equal(
                entropy, *(targets[f"score_variance/{w}"] for w in ("same", "fresh"))
            ),
        }
        for which in ("same", "fresh")
    }
    calibrated = dispersion * signals["reward_dispersion"]
    table["calibration_gap"] = {"signal": "cosine_dispersion"} | {
        which: {"difference": gap(calibrated, dispersion, targets[f"weighted_variance/{which}"], bootstrap)}
        for which in ("same", "fresh")
    }
    return table


def _alignment(draw: np.random.Generator) -> dict[str, Any]:
    def cell(gain: float) -> dict[str, Any]:
        return {"cosine": 0.2 * (1 + gain), "relative": {"value": gain, "ci95": [gain - 0.02, gain + 0.02]}}

    table = {name: {"clean": cell(draw.normal(0, 0.1)), "flip=0.25": cell(0.05)} for name in RECIPES}
    return table | {"group_sizes": {"8 x 2": cell(-0.1), "4 x 4": cell(0.0)}}
