"""``gcpo probe``: which signal knows what the gradient does, and which recipe points the right way, on this model.

For each prompt R responses are sampled. Signals see the first G; the gradients of all give the targets:

    score_variance     tr Cov(s)      of the same G responses, and of the R - G fresh ones
    weighted_variance  tr Cov(A s)    the same, A the base advantages of the recipe; besides (``/live``) without the
                                      prompts whose first G rewards agree: there it is 0, on the same responses

The run directory gets ``tracking.json`` (signals x targets, and the two gaps), ``alignment.json`` (recipes x
conditions), ``prompts.jsonl`` (a line a prompt: rewards, signals, targets), ``summary.json`` and
``report.html``.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gcpo import report
from gcpo.experiment.geometry import Geometry
from gcpo.experiment.progress import bar
from gcpo.experiment.rundir import RunDirectory, plain
from gcpo.experiment.settings import ProbeSettings, UsageError
from gcpo.experiment.subject import build_task, draw, load_policy, load_signals, poses_chat, versions
from gcpo.policies.sampling import Sampled, posed, sample
from gcpo.probe.alignment import Plan, Pool, alignment, by_group_size
from gcpo.probe.gradients import ResponseGradients
from gcpo.probe.sketch import estimates
from gcpo.probe.tracking import Bootstrap, gap, spread_at_equal, tracking_table
from gcpo.probe.variance import score_variance, weighted_variance
from gcpo.recipes import RECIPES, Outcome, Recipe, recipe
from gcpo.signals import SIGNALS
from gcpo.tasks import Example, Task


def probe(settings: ProbeSettings, output: Path) -> dict[str, Any]:
    """Probe a policy as ``settings`` say and leave a run directory in ``output``.

    Returns:
        What ``summary.json`` holds: ``status``, ``prompts``, ``accuracy``, ``dead`` (share of groups), ``tracking``,
        ``alignment``, ``sketch_error`` (of both variances, relative), ``report``.

    Raises:
        UsageError: The settings cannot be carried out; nothing has been sampled.
    """
    load_signals(settings)
    task = build_task(settings)
    steered, recipes = _recipes(settings, task.reward_range)
    examples = draw(task, "train", settings.groups, settings.seed)
    if len(examples) < settings.groups:
        raise UsageError(f"groups={settings.groups} prompts were asked for, but the data has {len(examples)}.")
    model, tokenizer = load_policy(settings.model, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    chat, geometry = poses_chat(settings, tokenizer), Geometry(settings, tokenizer)
    parameters = sum(p.requires_grad for p in model.parameters())
    if 0 < settings.features < parameters:
        raise UsageError(f"features must be 0 or at least {parameters}, one a parameter, found {settings.features}.")
    run = RunDirectory(output, {"command": "probe", **settings.as_dict(), "versions": versions()})
    with run.noting_failure({}):
        summary = _run(run, model.eval(), tokenizer, geometry, task, examples, settings, chat, steered, recipes)
    run.write_summary(summary)
    summary["report"] = str(report.build(output))
    run.write_summary(summary)
    return summary


def _run(
    run: RunDirectory,
    model: Any,
    tokenizer: Any,
    geometry: Geometry,
    task: Task,
    examples: Sequence[Example],
    settings: ProbeSettings,
    chat: bool,
    steered: Recipe,
    recipes: dict[str, Recipe],
) -> dict[str, Any]:
    """Sample, measure, write the tables."""
    collected: list[tuple[Pool, Tensor]] = []
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        for part in collect(model, tokenizer, geometry, task, examples, settings, chat):
            if not collected:  # a signal that fails shall do so before the long work
                _measured(*part, steered, settings.group_size)
            collected.append(part)
    pool, grams = joined(collected)
    signals, targets, outcome = _measured(pool, grams, steered, settings.group_size)
    tracking = _tracking(signals, targets, steered, Bootstrap.draw(len(examples), settings.resamples, settings.seed))
    run.write_text("tracking.json", json.dumps(plain(tracking), indent=2) + "\n")
    run.write_text("prompts.jsonl", "".join(_lines(examples, pool, settings.group_size, signals, targets)))
    run.write_text("alignment.json", json.dumps(plain(_alignment(pool, recipes, settings)), indent=2) + "\n")
    return {
        "status": "finished",
        "prompts": len(examples),
        "accuracy": _accuracy(task, examples, pool),
        "dead": float((~outcome.live).float().mean()),
        "tracking": str(run.path / "tracking.json"),
        "alignment": str(run.path / "alignment.json"),
        "sketch_error": _sketch_error(pool) if settings.features else None,
    }


def _sketch_error(pool: Pool) -> dict[str, float]:
    """Of the variances taken from sketches, relative: the median over prompts whose gradients differ."""
    products = estimates(pool.features.flatten(0, 1), pool.rewards.shape[1])
    advantages = recipe("dr-grpo")(pool.rewards).advantages
    found = {
        "score_variance": [score_variance(K) for K in products],
        "weighted_variance": [weighted_variance(K, advantages) for K in products],
    }
    return {name: float(((a - b).abs() / (a + b))[a + b > 0].median()) for name, (a, b) in found.items()}


def _recipes(settings: ProbeSettings, reward_range: float) -> tuple[Recipe, dict[str, Recipe]]:
    try:
        steered = recipe(settings.recipe, reward_range=reward_range)
        chosen = {name: recipe(name, reward_range=reward_range) for name in ["grpo", *(settings.recipes or RECIPES)]}
    except ValueError as error:
        raise UsageError(str(error)) from error
    reserved = sorted({"anisotropic_gap", "calibration_gap"} & set(SIGNALS))
    if reserved:
        raise UsageError(f"{reserved[0]!r} is a name of tracking.json and cannot be that of a signal: rename it.")
    if steered.signal is None:
        raise UsageError(f"recipe {settings.recipe!r} has no signal to probe: choose one that has, such as gcpo-cd.")
    return steered, chosen


def collect(
    model: Any,
    tokenizer: Any,
    geometry: Geometry,
    task: Task,
    examples: Sequence[Example],
    settings: ProbeSettings,
    chat: bool,
) -> Iterator[tuple[Pool, Tensor]]:
    """Responses of some prompts after others, with Gram matrices (of features, if not exact) and features."""
    gradients = ResponseGradients(model)
    least = 2 * len(gradients.shapes)
    if 0 < settings.features < least:
        raise UsageError(f"features must be 0 or at least {least} for this model, found {settings.features}.")
    prompts = settings.batch_size // settings.responses
    for start in bar(over=range(0, len(examples), prompts), label="probe"):
        rows = [e for e in examples[start : start + prompts] for _ in range(settings.responses)]
        said = sample(model, tokenizer, posed(rows, chat), settings.max_new_tokens or task.max_new_tokens, chat)
        grades = [task.grade(text, e) for text, e in zip(said.texts, rows, strict=True)]
        ids, attention, mask = _whole(said)
        dim = settings.features or None
        features = gradients.features(ids, attention, mask, dim, settings.seed, halves=dim is not None)
        if settings.exact:
            grams = gradients.grams(ids, attention, mask, settings.responses)
        else:
            sketched = features.unflatten(0, (-1, settings.responses)).double()
            grams = sketched @ sketched.mT
        shape = (-1, settings.responses)
        texts = [said.texts[i : i + settings.responses] for i in range(0, len(rows), settings.responses)]
        inputs: dict[str, Any] = {**geometry(model, said, settings.responses), "texts": texts}
        same = inputs.pop("same")
        yield Pool(features.unflatten(0, shape).cpu(), torch.tensor(grades).view(shape), inputs, same), grams.cpu()


def _whole(said: Sampled) -> tuple[Tensor, Tensor, Tensor]:
    """Prompt and response as one row: tokens, which exist, and which are the response's."""
    attention = torch.cat([said.prompt_mask, said.mask.to(said.prompt_mask)], dim=1)
    mask = torch.cat([torch.zeros_like(said.prompt_ids, dtype=torch.bool), said.mask], dim=1)
    return torch.cat([said.prompt_ids, said.ids], dim=1), attention, mask


def joined(parts: Sequence[tuple[Pool, Tensor]]) -> tuple[Pool, Tensor]:
    """One pool of several, with their Gram matrices."""
    pools = [pool for pool, _ in parts]
    inputs: dict[str, Any] = {
        name: torch.cat([pool.inputs[name] for pool in pools]) for name in pools[0].inputs if name != "texts"
    }
    inputs["texts"] = [group for pool in pools for group in pool.inputs["texts"]]
    features, rewards, same = (
        torch.cat([getattr(pool, name) for pool in pools]) for name in ("features", "rewards", "same")
    )
    return Pool(features, rewards, inputs, same), torch.cat([grams for _, grams in parts])


def _measured(
    pool: Pool, grams: Tensor, steered: Recipe, G: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], Outcome]:
    """Signals of the first G responses, targets of them and of the fresh ones, a number a prompt each."""
    base = recipe("grpo", base=steered.base, reward_range=steered.reward_range)
    targets = {}
    for sample_name, part in (("same", slice(0, G)), ("fresh", slice(G, None))):
        K = grams[:, part, part]
        outcome = base(pool.rewards[:, part], **_columns(pool, part))
        targets[f"score_variance/{sample_name}"] = score_variance(K).numpy()
        targets[f"weighted_variance/{sample_name}"] = weighted_variance(K, outcome.advantages).numpy()
    outcome = base(pool.rewards[:, :G], **_columns(pool, slice(0, G)), also=list(SIGNALS))
    for name in ("weighted_variance/same", "weighted_variance/fresh"):
        targets[f"{name}/live"] = np.where(outcome.live.numpy(), targets[name], np.nan)
    return {name: value.double().numpy() for name, value in outcome.signals.items()}, targets, outcome


def _accuracy(task: Task, examples: Sequence[Example], pool: Pool) -> float:
    """Mean score of all responses."""
    scores = [task.score(text, e) for e, texts in zip(examples, pool.inputs["texts"], strict=True) for text in texts]
    return float(np.mean(scores))


def _lines(
    examples: Sequence[Example], pool: Pool, G: int, signals: dict[str, np.ndarray], targets: dict[str, np.ndarray]
) -> Iterator[str]:
    """A line a prompt, with the responses that the signals saw."""
    for i, example in enumerate(examples):
        row = {
            "prompt": example.prompt,
            "rewards": pool.rewards[i].tolist(),
            "completions": pool.inputs["texts"][i][:G],
        }
        values = {"signals": signals, "targets": targets}
        row |= {kind: {name: float(v[i]) for name, v in named.items()} for kind, named in values.items()}
        yield json.dumps(plain(row)) + "\n"


def _columns(pool: Pool, part: slice) -> dict[str, Any]:
    """Inputs of the same responses to every prompt."""
    P, R = pool.rewards.shape
    columns = torch.arange(R)[part]
    return pool.part(torch.arange(P).unsqueeze(-1), columns.expand(P, -1))


def _tracking(
    signals: dict[str, np.ndarray], targets: dict[str, np.ndarray], steered: Recipe, bootstrap: Bootstrap
) -> dict[str, Any]:
    """The table, and the two gaps (docs/probe.md) for the recipe's signal."""
    assert steered.signal is not None
    entropy, geometry = signals["semantic_entropy"], signals[steered.signal]
    calibrated = geometry * signals["reward_dispersion"]
    gaps: dict[str, Any] = {
        "anisotropic_gap": {"signal": steered.signal},
        "calibration_gap": {"signal": steered.signal},
    }
    for which in ("same", "fresh"):
        variance, weighted = targets[f"score_variance/{which}"], targets[f"weighted_variance/{which}"]
        gaps["anisotropic_gap"][which] = {"difference": gap(geometry, entropy, variance, bootstrap)}
        gaps["calibration_gap"][which] = {
            "difference": gap(calibrated, geometry, weighted, bootstrap),
            "difference_live": gap(calibrated, geometry, targets[f"weighted_variance/{which}/live"], bootstrap),
        }
    shared = spread_at_equal(entropy, targets["score_variance/same"], targets["score_variance/fresh"])
    gaps["anisotropic_gap"]["fresh"]["spread_at_equal_entropy"] = shared
    return {**tracking_table(signals, targets, bootstrap), **gaps}


def _alignment(pool: Pool, recipes: dict[str, Recipe], settings: ProbeSettings) -> dict[str, Any]:
    """By recipe and condition; group sizes at equal samples under their own name, for GRPO."""
    plan = Plan(settings.batch_prompts, settings.group_size, settings.batches, settings.blocks, seed=settings.seed + 1)
    table: dict[str, Any] = {name: {} for name in recipes}
    for flip in settings.flip:
        condition = f"flip={flip:g}" if flip else "clean"
        plan = Plan(plan.prompts, plan.group_size, plan.batches, plan.blocks, flip, plan.seed)
        for name, row in alignment(pool, recipes, plan).items():
            table[name][condition] = row
    sizes = [settings.group_size // 2, settings.group_size, 2 * settings.group_size]
    clean = Plan(plan.prompts, plan.group_size, plan.batches, plan.blocks, 0.0, plan.seed)
    return table | {"group_sizes": by_group_size(pool, recipe("grpo"), clean, [g for g in sizes if g > 1])}
