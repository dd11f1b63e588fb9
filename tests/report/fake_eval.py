"""A made-up evaluation directory: a model against another on prompts that it gets right now and then."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from gcpo.experiment.assess import comparison, figures
from gcpo.experiment.settings import EvalSettings

SAMPLES = 3


def write_evaluation(directory: Path, prompts: int = 20, against: bool = True, said: str = "so") -> Path:
    """Write a finished evaluation into ``directory`` and return it."""
    draw = np.random.default_rng(0)
    directory.mkdir(parents=True, exist_ok=True)
    settings = EvalSettings(samples=SAMPLES)
    records = {name: [_record(draw, i, said) for i in range(prompts)] for name in ("responses", "against")}
    summary: dict[str, Any] = {"status": "finished", **figures(records["responses"], settings)}
    if against:
        summary["against"] = figures(records["against"], settings)
        summary["comparison"] = comparison(records["responses"], records["against"], settings)
    else:
        del records["against"]
    (directory / "config.yaml").write_text("command: eval\nmodel: starter\nright: 1.0\n", encoding="utf-8")
    (directory / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    for name, rows in records.items():
        lines = [json.dumps(row) + "\n" for row in reversed(rows)]  # the longest prompt is asked first
        (directory / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return directory


def _record(draw: np.random.Generator, i: int, said: str) -> dict[str, Any]:
    scores = (draw.random(SAMPLES + 1) < 0.5).astype(float).tolist()
    texts = [f"{said} #### {i if score else i + 1}" for score in scores]
    answered = {"prompt": f"{said} {i}+0=?", "answers": [str(i), "a"]}
    greedy = {"greedy": texts[0], "greedy_score": scores[0]}
    return {"i": i, **answered, **greedy, "responses": texts[1:], "scores": scores[1:]}
