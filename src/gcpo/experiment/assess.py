"""``gcpo eval``: how often a model is right, and which of two is right more often on the same prompts.

    responses.jsonl, against.jsonl   a line a prompt: responses and how right each is, of the model and of the other
    failures.jsonl                   what the model got wrong, for reading
    report.txt, report.html          the figures as a table; the page, with the failures for reading
    summary.json                     greedy, pass@1, pass@k, majority, score, each with its interval; comparison

Prompts are asked longest first, in batches of like length. A batch's seed follows from its place, and its responses
are on disk before the next begins: an interrupted run goes on where it stood, to the same responses.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gcpo import report
from gcpo.experiment.generation import Generator, check_model, generator
from gcpo.experiment.progress import bar
from gcpo.experiment.rundir import RunDirectory, plain
from gcpo.experiment.settings import EvalSettings, UsageError
from gcpo.experiment.statistics import estimate, majority, paired, pass_at_k
from gcpo.experiment.subject import build_task, draw, load_signals, versions
from gcpo.semantics.answers import extract_answer, fold
from gcpo.tasks import Example, Task

_PROMPTS = 512  # of a task with problems without number; data is used whole

Record = dict[str, Any]
"""A line of ``responses.jsonl``: its place ``i``, prompt, answers, greedy and sampled responses and their scores."""


def assess(settings: EvalSettings, output: Path) -> dict[str, Any]:
    """Evaluate a model as ``settings`` say and leave a run directory in ``output``.

    Returns:
        What ``summary.json`` holds: ``status``, ``n``, ``samples``, ``greedy``, ``greedy_score``, ``pass@1``,
        ``pass@k``, ``majority``, ``score``, ``failures``, ``table``, ``report``; with ``against`` also the other
        model's under that name, and ``comparison``.

    Raises:
        UsageError: The settings cannot be carried out; nothing has been asked.
    """
    load_signals(settings)
    task = build_task(settings)
    split: Any = settings.split
    examples = draw(task, split, settings.prompts or (_PROMPTS if task.count(split) is None else None), settings.seed)
    length = settings.max_new_tokens or task.max_new_tokens
    if settings.against is not None:  # it is loaded after the first has answered everything
        check_model(settings.against, settings)
    model = generator(settings.model, settings, length)
    run = RunDirectory(output, {"command": "eval", **settings.as_dict(), "versions": versions()})
    run.write_summary({"status": "running"})
    try:
        with run.noting_failure({}):
            records = _asked(run, "responses.jsonl", model, task, examples, settings)
            del model  # two large ones need not fit side by side
            others = None
            if settings.against is not None:
                other = generator(settings.against, settings, length)
                others = _asked(run, "against.jsonl", other, task, examples, settings)
    except KeyboardInterrupt:
        stopped = {"status": "interrupted", "output": str(output)}
        run.write_summary(stopped)
        return stopped
    summary: dict[str, Any] = {"status": "finished", **figures(records, settings)}
    if others is not None:
        summary |= {"against": figures(others, settings), "comparison": comparison(records, others, settings)}
    failures = [line for record in records if (line := _failure(record, settings)) is not None]
    run.write_text("failures.jsonl", "".join(json.dumps(plain(f)) + "\n" for f in failures))
    run.write_text("report.txt", table(summary) + "\n")
    summary |= {"failures": str(output / "failures.jsonl"), "table": str(output / "report.txt")}
    run.write_summary(summary)
    summary["report"] = str(report.build(output))
    run.write_summary(summary)
    return summary


def _asked(
    run: RunDirectory, file: str, model: Generator, task: Task, examples: Sequence[Example], settings: EvalSettings
) -> list[Record]:
    """A record of each example, in their order; those on disk are not asked again."""
    known = {record["i"]: record for record in _kept(run, file)}
    _check_same(run, known, examples)
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].text()), reverse=True)
    progress = bar(total=len(examples), initial=len(known), label=file.removesuffix(".jsonl"))
    right = sum(map(_mean_score, known.values()))
    with progress:
        for start in range(0, len(order), model.prompts_a_batch):
            batch = order[start : start + model.prompts_a_batch]
            if all(i in known for i in batch):
                continue
            fresh = _records(model, task, [examples[i] for i in batch], settings, settings.seed * 1_000_003 + start)
            for i, record in zip(batch, fresh, strict=True):
                if i not in known:
                    known[i] = {"i": i, **record}
                    run.append(file, known[i])
                    right += _mean_score(known[i])
                    progress.update()
            progress.set_postfix(right=f"{right / len(known):.3f}", refresh=False)
    return [known[i] for i in range(len(examples))]


def _check_same(run: RunDirectory, known: Mapping[int, Record], examples: Sequence[Example]) -> None:
    """Nothing on disk is of other data, whose file has the same name."""
    for i, record in known.items():
        if i >= len(examples) or (record["prompt"], record["answers"]) != (examples[i].prompt, [*examples[i].answers]):
            raise UsageError(
                f"the output {run.path} has responses to other prompts or answers than the data has now, the first "
                f"{record['prompt'][:60]!r}: choose another directory."
            )


def _kept(run: RunDirectory, file: str) -> list[Record]:
    """The whole lines of a file; what was being written when the run ended is dropped."""
    path = run.path / file
    if not path.is_file():
        return []
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    run.write_text(file, "".join(whole))
    return [json.loads(line) for line in whole]


def _records(
    model: Generator, task: Task, examples: Sequence[Example], settings: EvalSettings, seed: int
) -> Iterator[Record]:
    greedy = model(examples, 1, 0.0, seed) if settings.greedy else [[] for _ in examples]
    sampled: list[list[str]] = [[] for _ in examples]
    if settings.samples:
        sampled = model(examples, settings.samples, settings.temperature, seed)
    for example, first, responses in zip(examples, greedy, sampled, strict=True):
        yield {
            "prompt": example.prompt,
            "answers": list(example.answers),
            "greedy": first[0] if first else None,
            "greedy_score": task.score(first[0], example) if first else None,
            "responses": responses,
            "scores": [task.score(response, example) for response in responses],
        }


def _mean_score(record: Record) -> float:
    return float(np.mean(record["scores"] or [record["greedy_score"]]))


def figures(records: Sequence[Record], settings: EvalSettings) -> dict[str, Any]:
    """All figures of one model, each with a 95 % interval over prompts."""
    found: dict[str, Any] = {"n": len(records), "samples": settings.samples}
    if settings.greedy:
        found["greedy"] = estimate(_greedy(records, settings))
        found["greedy_score"] = estimate(np.array([r["greedy_score"] for r in records]))
    if settings.samples:
        right = _right(records, settings)
        counts = right.sum(1)
        passes = {
            k: np.array([pass_at_k(settings.samples, int(c), k) for c in counts]) for k in (1, *settings.ks) if k
        }
        found["pass@1"] = estimate(passes[1])
        found["pass@k"] = {str(k): estimate(values) for k, values in sorted(passes.items())}
        votes = [majority(_answers(r), list(row)) for r, row in zip(records, right, strict=True)]
        found["majority"] = estimate(np.array(votes, dtype=float))
        found["score"] = estimate(np.array([np.mean(r["scores"]) for r in records]))
    return found


def _greedy(records: Sequence[Record], settings: EvalSettings) -> np.ndarray:
    return np.array([float(r["greedy_score"] >= settings.right) for r in records])


def _right(records: Sequence[Record], settings: EvalSettings) -> np.ndarray:
    return np.array([[score >= settings.right for score in r["scores"]] for r in records])


def _answers(record: Record) -> list[str]:
    """What each response votes for: its final answer, or all it says."""
    return [fold(extract_answer(response) or response) for response in record["responses"]]


def comparison(first: Sequence[Record], second: Sequence[Record], settings: EvalSettings) -> dict[str, Any]:
    """Paired tests of the model against the other, on the same prompts."""
    found = {}
    if settings.greedy:
        found["greedy"] = paired(_greedy(first, settings), _greedy(second, settings))
        found["greedy_score"] = paired(*(np.array([r["greedy_score"] for r in rs]) for rs in (first, second)))
    if settings.samples:
        found["pass@1"] = paired(*(_right(records, settings).mean(1) for records in (first, second)))
        found["score"] = paired(*(np.array([np.mean(r["scores"]) for r in records]) for records in (first, second)))
    return found


def _failure(record: Record, settings: EvalSettings) -> Record | None:
    """What to read of a prompt that the model got wrong: greedily, or without that by its first wrong sample."""
    pairs = [*zip(record["responses"], record["scores"], strict=True)]
    if settings.greedy:
        pairs = [(record["greedy"], record["greedy_score"])]
    wrong = [(response, score) for response, score in pairs if score < settings.right]
    if not wrong:
        return None
    response, score = wrong[0]
    rates = [s >= settings.right for s in record["scores"]]
    return {
        "prompt": record["prompt"],
        "answers": record["answers"],
        "response": response,
        "read_as": extract_answer(response),
        "score": score,
        "sampled_right": sum(rates) / len(rates) if rates else None,
    }


# A score is shown where it says more than the share of right responses.
_SHARES = {"greedy_score": "greedy", "score": "pass@1"}


def table(summary: dict[str, Any]) -> str:
    """A row a figure, of the model and of the other; then their paired differences."""
    shown = {"model": summary} | ({"against": summary["against"]} if "against" in summary else {})
    plain_names = [name for name in ("greedy", "majority") if name in summary]
    passes = [f"pass@{k}" for k in summary.get("pass@k", ())]
    graded = [score for score, share in _SHARES.items() if any(_differ(s, score, share) for s in shown.values())]
    lines = [f"{summary['n']} prompts, {summary['samples']} samples each", f"{'':14}" + _row(shown)]
    for name in [*plain_names, *passes, *graded]:
        found = [s["pass@k"][name[5:]] if name in passes else s[name] for s in shown.values()]
        lines.append(f"{name:14}" + _row(map(_percent, found)))
    for name, test in summary.get("comparison", {}).items():
        if name not in _SHARES or name in graded:
            change = "-" if test["ci95"] is None else _percent({"value": test["difference"], "ci95": test["ci95"]})
            lines.append(f"{name}: model minus against {change}, p = {test['p']:.3g} ({test['test']})")
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return "".join(f"{cell:>26}" for cell in cells)


def _differ(figures: dict[str, Any], *names: str) -> bool:
    known = [figures[name]["value"] for name in names if name in figures]
    return bool(known) and max(known) - min(known) > 1e-9  # sums in another order end in other digits


def _percent(found: dict[str, Any]) -> str:
    value, (low, high) = 100 * found["value"], (100 * x for x in found["ci95"])
    return f"{value:.1f} % ({low:.1f} to {high:.1f})"
