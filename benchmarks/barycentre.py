"""Error and time of barycentric transport and of other forms of it, against POT's exact free-support barycentre.

1. Error of the default and of ``exact=False``: cost / reference - 1, the reference being the lowest cost of POT's
   ``free_support_barycenter`` over RESTARTS starts, with as many equal support points as the largest response has. A
   negative one is a better barycentre than any restart found. On synthetic clouds of three kinds, equal and ragged,
   and on real ones: steps of responses sampled from the starter policy, and of the files given with --clouds, each a
   ``torch.save`` of {name: (points (B, G, S, D), point mask (B, G, S))}.
2. Time at G = 16, S = 8: one call on GROUPS groups, over a loop over groups of ONE restart of POT, without and with
   the ``emd2`` calls that its cost takes. One thread; medians over REPEATS repetitions of all forms in turn, of the
   times and of the ratios.
3. Every form of barycentre_forms.py: its time, its error against the default and its rank correlation with it.

    python benchmarks/barycentre.py [--clouds FILE ...]  ->  benchmarks/results/barycentre.json
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import ot
import torch
from barycentre_forms import FORMS, Clouds, default, fast, ours
from scipy.stats import spearmanr
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from gcpo.policies import resolve
from gcpo.policies.sampling import respond
from gcpo.semantics import pool_steps, step_index
from gcpo.semantics.step_ends import StepEnds
from gcpo.tasks import get_task

GROUPS, POT_GROUPS, RESTARTS, REPEATS = 64, 16, 8, 11
SYNTHETIC, REAL = 16, 24  # groups compared with POT, a shape and a source
PROMPTS, MAX_STEPS = 64, 8
SHAPES = [(8, 8, 64), (8, 4, 32), (4, 3, 8), (6, 5, 16), (16, 8, 64), (16, 8, 384)]


def independent(B: int, G: int, S: int, D: int) -> Tensor:
    """Points that share nothing."""
    return torch.randn(B, G, S, D)


def steps(B: int, G: int, S: int, D: int) -> Tensor:
    """Three ways to take the same S steps, in any order, with noise and a common offset."""
    way = torch.randint(0, 3, (B, G, 1, 1)).expand(-1, -1, S, D)
    x = torch.randn(B, 1, S, D) + 0.7 * torch.randn(B, 3, S, D).gather(1, way)
    x = x + 0.4 * torch.randn(B, G, S, D)
    x = x.gather(2, torch.rand(B, G, S, 1).argsort(2).expand(-1, -1, -1, D))
    return x + 1.5 * torch.randn(B, 1, 1, D)


def walks(B: int, G: int, S: int, D: int) -> Tensor:
    """Each step moves on from the one before."""
    return torch.randn(B, G, S, D).cumsum(2) + 2 * torch.randn(B, 1, 1, D)


def starter(task_name: str, G: int) -> tuple[Tensor, Tensor]:
    """Hidden states of the starter policy, a point a line, of G responses sampled for each test prompt."""
    model = AutoModelForCausalLM.from_pretrained(resolve("starter")).eval()
    tokenizer = AutoTokenizer.from_pretrained(resolve("starter"))
    task = get_task(task_name)
    rows = [example.prompt for example in task.examples("test", PROMPTS, seed=0) for _ in range(G)]
    responses = respond(model, tokenizer, rows, task.max_new_tokens)
    prompts = tokenizer(rows, return_tensors="pt", padding=True, padding_side="left")
    said = tokenizer(responses, return_tensors="pt", padding=True, padding_side="right")
    ids = torch.cat([prompts["input_ids"], said["input_ids"]], dim=1)
    attention = torch.cat([prompts["attention_mask"], said["attention_mask"]], dim=1)
    with torch.no_grad():
        states = model.base_model(ids, attention).last_hidden_state[:, prompts["input_ids"].shape[1] :]
    counted = said["attention_mask"].bool()
    ends = StepEnds(tokenizer, "lines")(said["input_ids"], counted)
    points, exist = pool_steps(states, step_index(ends, counted, MAX_STEPS), counted, MAX_STEPS)
    longest = int(exist.sum(-1).max())
    return points[:, :longest].unflatten(0, (PROMPTS, G)), exist[:, :longest].unflatten(0, (PROMPTS, G))


def prepared(points: Tensor, exist: Tensor) -> Clouds:
    """Clouds of unit points."""
    clouds = ours._clouds(points, exist, None)
    x = clouds.x / clouds.length.unsqueeze(-1)
    return Clouds(x, torch.ones_like(clouds.length), clouds.size)


def as_numpy(clouds: Clouds) -> list[list[np.ndarray]]:
    """Groups of point clouds as POT takes them."""
    x, _, size = clouds
    return [[c[:n].double().numpy() for c, n in zip(g, s, strict=True) if n] for g, s in zip(x, size, strict=True)]


def restart(clouds: list[np.ndarray], start: np.ndarray, valued: bool = True, **settings: Any) -> float:
    """POT's barycentre from one start, and its cost."""
    k, weights = len(start), [np.full(len(c), 1 / len(c)) for c in clouds]
    support = ot.lp.free_support_barycenter(clouds, weights, start.copy(), **settings)
    if not valued:
        return 0.0
    b = np.full(k, 1 / k)
    return float(np.mean([ot.emd2(w, b, ot.dist(c, support)) for c, w in zip(clouds, weights, strict=True)]))


def reference(clouds: list[np.ndarray]) -> float:
    """Lowest cost over the restarts: from full clouds first, then from points of the union."""
    random, union, k = np.random.default_rng(0), np.concatenate(clouds), max(map(len, clouds))
    full = [c for c in clouds if len(c) == k][: RESTARTS // 2]
    drawn = [union[random.choice(len(union), k, replace=False)] for _ in range(RESTARTS - len(full))]
    return min(restart(clouds, start, numItermax=200, stopThr=1e-9) for start in full + drawn)


def percent(value: Tensor, true: Tensor) -> dict[str, float]:
    """Mean, largest and farthest error where there is anything to err about."""
    counts = true > 1e-6
    error = 100 * (value[counts] / true[counts] - 1)
    found = {"mean": error.mean(), "max": error.max(), "farthest": error[error.abs().argmax()]}
    return {f"error_{name}_percent": e.item() for name, e in found.items()}


def against_pot(name: str, clouds: Clouds) -> dict[str, Any]:
    """Errors of both forms against POT's restarts."""
    best = torch.tensor([reference(group) for group in as_numpy(clouds)])
    row: dict[str, Any] = {"clouds": name, "groups": len(best), "median_bot": best.median().item()}
    row |= {"default": percent(default(clouds), best), "fast": percent(fast(clouds), best)}
    print(f"{name:40}", *(f"{e:+7.2f}" for form in ("default", "fast") for e in row[form].values()), flush=True)
    return row


def synthetic() -> dict[str, Clouds]:
    """Every kind, shape and raggedness."""
    torch.manual_seed(0)
    made = {}
    for kind in (independent, steps, walks):
        for G, S, D in SHAPES:
            for ragged in (False, True):
                size = torch.randint(1, S + 1, (SYNTHETIC, G)) if ragged else torch.full((SYNTHETIC, G), S)
                x = kind(SYNTHETIC, G, S, D)
                name = f"{kind.__name__} {G} x {S} x {D}{', ragged' if ragged else ''}"
                made[name] = prepared(x, torch.arange(S) < size.unsqueeze(-1))
    return made


def real(files: list[Path]) -> dict[str, Clouds]:
    """The starter policy's clouds and those of files."""
    torch.manual_seed(0)
    found = {f"starter {task}, G = {G}": starter(task, G) for task in ("chain", "product") for G in (8, 16)}
    for file in files:
        found |= torch.load(file, weights_only=True)
    return {name: prepared(points, exist) for name, (points, exist) in found.items()}


def timed(functions: dict[str, Callable[[], object]]) -> dict[str, np.ndarray]:
    """Wall clock of each in seconds, all of them in turn in every repetition."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(REPEATS):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - started)
    return {name: np.array(t) for name, t in times.items()}


def speed(D: int, ragged: bool) -> dict[str, Any]:
    """Milliseconds a group of every form and of POT, 16 responses of 8 (or 1 to 8) points, and their ratios."""
    torch.manual_seed(0)
    x = steps(GROUPS, 16, 8, D)
    size = torch.randint(1, 9, (GROUPS, 16)) if ragged else torch.full((GROUPS, 16), 8)
    clouds = prepared(x, torch.arange(8) < size.unsqueeze(-1))
    some = as_numpy(clouds)[:POT_GROUPS]

    def pot(valued: bool) -> None:
        for group in some:
            restart(group, max(group, key=len), valued)

    pots: dict[str, Callable[[], object]] = {"POT": lambda: pot(False), "POT with emd2": lambda: pot(True)}
    seconds = timed(pots | {name: lambda form=form: form(clouds) for name, form in FORMS.items()})
    ms = {name: 1000 * s / (POT_GROUPS if name in pots else GROUPS) for name, s in seconds.items()}
    forms = {}
    for name in FORMS:
        forms[name] = {"ms_a_group": float(np.median(ms[name]))}
        for than in pots:  # the median of the ratios inside a repetition
            forms[name][f"times_faster_than_{than}"] = float(np.median(ms[than] / ms[name]))
    return {"D": D, "ragged": ragged, "pot_ms_a_group": {n: float(np.median(ms[n])) for n in pots}, "forms": forms}


def compare(clouds: Clouds) -> dict[str, Any]:
    """Error and rank correlation of every form with the default."""
    true = default(clouds)
    row = {}
    for name, form in FORMS.items():
        value = form(clouds)
        row[name] = {"spearman": float(spearmanr(value, true).statistic), **percent(value, true)}
    return row


def show(result: dict[str, Any]) -> None:
    """Print the table of forms."""
    print("times faster than POT, and than POT with emd2; least rank correlation; errors on real clouds")
    rows = list(result["forms"].values())
    for name in FORMS:
        cells = []
        for s in result["speed"]:
            ms, *times = s["forms"][name].values()
            cells.append(f"{ms:6.3f} ms" + "".join(f" {t:6.1f}x" for t in times))
        mean = statistics.mean(r[name]["error_mean_percent"] for r in rows)
        worst = max((r[name]["error_farthest_percent"] for r in rows), key=abs)
        cells.append(f"{min(r[name]['spearman'] for r in rows):.4f} {mean:+7.2f} {worst:+7.2f}")
        print(f"{name:34}", " | ".join(cells))


def main() -> None:
    """Measure all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clouds", type=Path, nargs="*", default=[], help="files of more real clouds")
    torch.set_num_threads(1)
    clouds = real(parser.parse_args().clouds)
    some = {name: Clouds(*(t[:REAL] for t in c)) for name, c in clouds.items()}
    result = {
        "versions": {name: version(name) for name in ("torch", "POT", "numpy", "scipy")}
        | {"python": platform.python_version()},
        "device": f"{platform.machine()} CPU, 1 thread",
        "speed": [speed(D, ragged) for ragged in (False, True) for D in (64, 384)],
        "forms": {name: compare(c) for name, c in clouds.items()},
    }
    show(result)
    result["against_pot"] = [against_pot(name, c) for name, c in (synthetic() | some).items()]
    (Path(__file__).parent / "results" / "barycentre.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
