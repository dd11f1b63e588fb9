"""Read the directory of an evaluation, whole or cut short, into plain data fit for JSON.

The page trusts what leaves this module: an estimate has a ``value`` and a ``ci95`` of two numbers, either may be None;
a group is a prompt with a wrong response, its responses have a label, a text and a score. Notes as for a training run.
"""

from pathlib import Path
from typing import Any

from gcpo.report.reading import Record, document, estimate, items, number, padded, rows, text
from gcpo.semantics import extract_answer

SHOWN, SAMPLES = 500, 8
"""How many prompts the page has at most, and samples of each: it holds the whole of every response."""


def is_evaluation(directory: Path) -> bool:
    """Whether the run in ``directory`` is an evaluation, by its config.yaml."""
    return document(directory / "config.yaml", []).get("command") == "eval"


def read(directory: Path) -> Record:
    """Everything the page shows of the evaluation in ``directory``."""
    notes: list[str] = []
    config, summary = (document(directory / name, notes) for name in ("config.yaml", "summary.json"))
    asked = sorted(rows(directory / "responses.jsonl", notes), key=lambda row: number(row.get("i")) or 0)
    others = {row.get("i"): row for row in rows(directory / "against.jsonl", notes)}
    right = number(config.get("right")) or 1.0
    groups = [_group(row, others.get(row.get("i")), right) for row in asked]
    failed = [group for group in groups if group["rate"] < 1 or group["wrong"]]
    if len(failed) > SHOWN:
        notes.append(
            f"The first {SHOWN} of {len(failed)} prompts with a wrong response are shown; the rest is on disk."
        )
    if (number(summary.get("samples")) or 0) > SAMPLES:
        notes.append(f"The first {SAMPLES} samples of each prompt are shown; figures are of all.")
    other = summary.get("against")
    return {
        "name": directory.resolve().name,
        "config": config,
        "summary": {key: summary.get(key) for key in ("status", "n", "samples")},
        "asked": len(asked),
        "failed": len(failed),
        "figures": _figures(summary),
        "against": _figures(other) if isinstance(other, dict) else None,
        "comparison": _comparison(summary.get("comparison")),
        "groups": failed[:SHOWN],
        "notes": notes,
    }


def _figures(summary: Record) -> Record:
    """Estimates by name; scores only where they say more than the shares of right responses do."""
    passes = summary.get("pass@k")
    by_k = {f"pass@{k}": value for k, value in passes.items()} if isinstance(passes, dict) else {}
    named = {name: summary.get(name) for name in ("greedy", "majority", *by_k, "greedy_score", "score")} | by_k
    found = {name: estimate(value) for name, value in named.items() if isinstance(value, dict)}
    for score, of_right in (("greedy_score", "greedy"), ("score", "pass@1")):
        if _equal(found.get(score), found.get(of_right)):
            del found[score]
    return found


def _equal(first: Record | None, second: Record | None) -> bool:
    values = [found["value"] for found in (first, second) if found is not None and found["value"] is not None]
    return len(values) == 2 and abs(values[0] - values[1]) < 1e-9


def _comparison(tests: Any) -> Record:
    found = tests if isinstance(tests, dict) else {}
    return {name: _test(test) for name, test in found.items() if isinstance(test, dict)}


def _test(test: Record) -> Record:
    counts = {name: number(test.get(name)) for name in ("p", "first", "second")}
    difference = estimate({"value": test.get("difference"), "ci95": test.get("ci95")})
    return {"difference": difference, "test": text(test.get("test")), **counts}


def _group(row: Record, other: Record | None, right: float) -> Record:
    """One prompt: the model's responses, and the first one of the other model."""
    responses = _responses(row, right)
    sampled = [said["right"] for said in responses if said["label"] != "greedy"] or [r["right"] for r in responses]
    responses = responses[: SAMPLES + 1]
    compared = [said | {"label": f"other model, {said['label']}"} for said in _responses(other or {}, right)[:1]]
    return {
        "i": number(row.get("i")),
        "prompt": text(row.get("prompt")),
        "answer": "\n".join(map(text, items(row.get("answers")))),
        "rate": sum(sampled) / len(sampled) if sampled else 0.0,
        "wrong": not (responses and responses[0]["right"]),
        "lost": any(said["right"] for said in compared) and not (responses and responses[0]["right"]),
        "responses": responses + compared,
        "completions": [said["text"] for said in responses],
    }


def _responses(row: Record, right: float) -> list[Record]:
    """The greedy response, if there is one, and the samples."""
    responses = items(row.get("responses"))
    sampled = zip(responses, padded(row.get("scores"), len(responses)), strict=True)
    said = [(f"sample {k}", *pair) for k, pair in enumerate(sampled, start=1)]
    if row.get("greedy") is not None:
        said = [("greedy", row["greedy"], row.get("greedy_score")), *said]
    return [_response(label, text(words), number(score), right) for label, words, score in said]


def _response(label: str, words: str, score: float | None, right: float) -> Record:
    is_right = score is not None and score >= right
    return {"label": label, "text": words, "score": score, "right": is_right, "read": extract_answer(words)}
