"""How close variants of recipes point to the true gradient: the table behind docs/results/alignment.md.

    python benchmarks/recipes.py --task chain --groups 192 --pool chain.pt

Samples a pool of responses with their gradients, as ``gcpo probe`` does (kept in --pool, if given), and aligns many
recipes on it, with clean and with flipped rewards, batches of 16 prompts x 8 responses, a block of 16 prompts each.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from gcpo.experiment.geometry import Geometry
from gcpo.experiment.probe import collect, joined
from gcpo.experiment.settings import ProbeSettings
from gcpo.experiment.subject import build_task, draw, load_policy, poses_chat, versions
from gcpo.probe.alignment import Plan, Pool, alignment
from gcpo.recipes import Recipe, recipe

FOCAL = {"signal": "score_dispersion", "modulation": "focal"}


def variants() -> dict[str, Recipe]:
    """What is compared, GRPO first."""
    sb = replace(recipe("score-baseline"))
    table = {name: recipe(name) for name in ("grpo", "dr-grpo", "rloo", "gcpo-cd", "gcpo-bot")}
    for alpha in (0.5, 1.0, 2.0):
        table[f"seed, exp, alpha {alpha:g}"] = recipe("seed-grpo", modulation="exponential", alpha=alpha)
    table["gcpo-cd, product"] = recipe("gcpo-cd", calibration="product")
    table["entropy of directions, alpha 4"] = recipe("dr-grpo", signal="von_neumann_entropy", alpha=4.0)
    table["predictive entropy, focal 1"] = recipe("dr-grpo", signal="predictive_entropy", modulation="focal")
    for alpha in (0.5, 1.0):
        table[f"inverse variance, alpha {alpha:g}"] = recipe("dr-grpo", **FOCAL, alpha=alpha)
    table["inverse weighted variance"] = recipe("dr-grpo", **FOCAL | {"signal": "weighted_score_dispersion"})
    table["score-baseline"] = sb
    table["score-baseline, inverse variance"] = replace(sb, **FOCAL)
    for base in ("grpo", "rloo", "score-baseline"):
        for c in (0.5, 0.75, 1.0, 1.5):
            table[f"{base}, damping {c:g}"] = replace(recipe("rloo", base=base), damping=c)
    table["score-baseline, damping 1, seed"] = replace(sb, damping=1.0, signal="semantic_entropy")
    table["score-baseline, damping 1, inverse variance"] = replace(sb, damping=1.0, **FOCAL)
    return table


def pool_of(settings: ProbeSettings, file: Path | None) -> Pool:
    """The pool in the file, or a new one."""
    if file is not None and file.is_file():
        kept = torch.load(file, weights_only=True)
        return Pool(**kept)
    task = build_task(settings)
    model, tokenizer = load_policy(settings.model, torch.device("cpu"))
    examples = draw(task, "train", settings.groups, settings.seed)
    torch.manual_seed(settings.seed)
    chat, geometry = poses_chat(settings, tokenizer), Geometry(settings, tokenizer)
    pool, _ = joined(list(collect(model.eval(), tokenizer, geometry, task, examples, settings, chat)))
    if file is not None:
        torch.save({**vars(pool), "inputs": dict(pool.inputs)}, file)
    return pool


def main() -> None:
    """Print a table, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="chain")
    parser.add_argument("--model", default="starter")
    parser.add_argument("--data")
    parser.add_argument("--groups", type=int, default=192)
    parser.add_argument("--responses", type=int, default=32)
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument("--seed", type=int, default=0, help="of the prompts and the samples of a new pool")
    parser.add_argument("--pool", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = ProbeSettings(
        task=given.task, model=given.model, data=given.data, groups=given.groups, responses=given.responses,
        features=4096, exact=False, max_new_tokens=given.max_new_tokens, blocks=2, batch_prompts=8, seed=given.seed,
    )  # fmt: skip
    pool = pool_of(settings, given.pool)
    P = len(pool.rewards)
    plan = Plan(prompts=16, group_size=8, batches=16 * (P // 16), blocks=P // 16, seed=1)
    dead = (pool.rewards[:, :8].amax(1) == pool.rewards[:, :8].amin(1)).float().mean()
    print(f"{given.task}: {P} prompts, accuracy {pool.rewards.mean():.3f}, dead groups {dead:.2f}")
    rows = {flip: alignment(pool, variants(), replace(plan, flip=flip)) for flip in (0.0, 0.25)}
    for name in rows[0.0]:
        cells = [rows[flip][name]["relative"] for flip in rows]
        texts = [f"{100 * c['value']:+.1f} ({100 * c['ci95'][0]:+.1f} to {100 * c['ci95'][1]:+.1f})" for c in cells]
        print("| " + " | ".join([name, *texts]) + " |", flush=True)
    if given.json:
        found = {"task": given.task, "model": Path(given.model).name, "prompts": P, "versions": versions()}
        given.json.write_text(
            json.dumps(found | {f"flip={flip:g}": row for flip, row in rows.items()}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
