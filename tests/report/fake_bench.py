"""The directory of a bench as ``gcpo bench`` leaves it, with numbers made up."""

import json
from pathlib import Path
from typing import Any


def estimate(value: float) -> dict[str, Any]:
    return {"value": value, "ci95": [value - 0.03, value + 0.03]}


def write_bench(directory: Path, name: str = "gcpo") -> Path:
    """Two recipes on a task; the second is called ``name``."""
    score = {"runs": 3, "iqm": estimate(0.6), "mean": estimate(0.61)}
    compared = {
        "pairs": 2,
        "difference": estimate(0.05),
        "probability_of_improvement": estimate(0.8),
        "better": 2,
        "worse": 0,
        "p": 0.5,
        "p_holm": 0.5,
    }
    steps = [0.0, 10.0, 20.0]
    recipe = {
        "runs": {"0": {"final": 0.6, "area": 0.5}},
        "final": estimate(0.6),
        "area": estimate(0.5),
        "curve": {
            "accuracy": [0.3, 0.5, 0.6],
            "ci95": [[0.2, 0.4], [0.4, 0.6], None],
            **dict.fromkeys(("steps", "samples", "tokens", "seconds"), steps),
        },
        "to_target": {"reached": 1, "censored": 2, "median": {"steps": None}},
    }
    bench = {
        "status": "failed",
        "cells": 6,
        "finished": 5,
        "failed": {"chain/starter/gcpo/lr=0.0002/seed=2": "exit code 1: it broke"},
        "plan": {"baseline": "grpo", "seeds": [0, 1, 2]},
        "versions": {"torch": "2.13.0"},
        "tuning": {
            "chain/starter": {
                r: {"chosen": {"learning_rate": 2e-4}, "edges": ["learning_rate"], "candidates": []}
                for r in ("grpo", name)
            }
            | {"rloo": {"chosen": None, "pending": 3, "edges": [], "candidates": []}}
        },
        "scored": ["chain/starter"],
        "scores": {r: {"final": score, "area": score} for r in ("grpo", name)},
        "comparisons": {score: {name: compared} for score in ("final", "area")},
        "problems": {
            "chain/starter": {
                "target": 0.55,
                "recipes": {"grpo": recipe, name: recipe},
                "comparisons": {score: {name: compared} for score in ("final", "area")},
                "cost_ratios": {
                    name: {
                        "pairs": 3,
                        "reached": [1, 2],
                        "steps": {"value": 0.8, "ci95": [0.625, None]},
                        "samples": {"value": None, "ci95": [0.5, None]},
                        "tokens": estimate(0.7),
                        "seconds": None,
                    }
                },
            }
        },
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "bench.json").write_text(json.dumps(bench))
    return directory
