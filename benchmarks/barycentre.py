"""Error and time of barycentric transport against POT's exact free-support barycentre.

Method: clouds of three kinds (independent points; steps in any order with response noise; random walks), equal and
ragged sizes, 16 groups each. The reference is the lowest cost of POT's ``free_support_barycenter`` over RESTARTS
starts, with as many equal support points as the largest response has. Error = ours / reference - 1, so a negative one
means a better barycentre than any restart found. Time is wall clock of one call on all groups over POT's time for ONE
restart, one thread, median of REPEATS, in the same run.

    python benchmarks/barycentre.py  ->  benchmarks/results/barycentre.json
"""

import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import ot
import torch
from torch import Tensor

from gcpo.signals import barycentric_transport

GROUPS, RESTARTS, REPEATS = 16, 8, 7
SHAPES = [(8, 8, 64), (8, 4, 32), (4, 3, 8), (6, 5, 16), (16, 8, 64), (8, 8, 384)]


def independent(G: int, S: int, D: int) -> Tensor:
    """Points that share nothing."""
    return torch.randn(GROUPS, G, S, D)


def steps(G: int, S: int, D: int) -> Tensor:
    """Three ways to take the same S steps, in any order, with noise and a common offset."""
    way = torch.randint(0, 3, (GROUPS, G, 1, 1)).expand(-1, -1, S, D)
    x = torch.randn(GROUPS, 1, S, D) + 0.7 * torch.randn(GROUPS, 3, S, D).gather(1, way)
    x = x + 0.4 * torch.randn(GROUPS, G, S, D)
    x = x.gather(2, torch.rand(GROUPS, G, S, 1).argsort(2).expand(-1, -1, -1, D))
    return x + 1.5 * torch.randn(GROUPS, 1, 1, D)


def walks(G: int, S: int, D: int) -> Tensor:
    """Each step moves on from the one before."""
    return torch.randn(GROUPS, G, S, D).cumsum(2) + 2 * torch.randn(GROUPS, 1, 1, D)


def timed(function: Callable[[], object]) -> float:
    """Median wall clock of a call in seconds."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def restart(clouds: list[np.ndarray], k: int, start: np.ndarray) -> float:
    """Cost of POT's barycentre from one start."""
    weights = [np.full(len(c), 1 / len(c)) for c in clouds]
    support = ot.lp.free_support_barycenter(clouds, weights, start.copy(), numItermax=200, stopThr=1e-9)
    return float(
        np.mean([ot.emd2(w, np.full(k, 1 / k), ot.dist(c, support)) for c, w in zip(clouds, weights, strict=True)])
    )


def reference(clouds: list[np.ndarray]) -> float:
    """Lowest cost over the restarts: from full clouds first, then from points of the union."""
    random, union, k = np.random.default_rng(0), np.concatenate(clouds), max(map(len, clouds))
    full = [c for c in clouds if len(c) == k][: RESTARTS // 2]
    drawn = [union[random.choice(len(union), k, replace=False)] for _ in range(RESTARTS - len(full))]
    return min(restart(clouds, k, start) for start in full + drawn)


def measure(kind: Callable[[int, int, int], Tensor], G: int, S: int, D: int, ragged: bool) -> dict[str, object]:
    """Errors of both forms and their time over one restart of POT."""
    torch.manual_seed(0)
    x = torch.nn.functional.normalize(kind(G, S, D), dim=-1)
    sizes = torch.randint(1, S + 1, (GROUPS, G)) if ragged else torch.full((GROUPS, G), S)
    mask = torch.arange(S) < sizes.unsqueeze(-1)
    groups = [[x[b, i, : sizes[b, i]].double().numpy() for i in range(G)] for b in range(GROUPS)]
    best = torch.tensor([reference(clouds) for clouds in groups])
    one = timed(lambda: [restart(c, max(map(len, c)), max(c, key=len)) for c in groups])
    row: dict[str, object] = {"kind": kind.__name__, "G": G, "S": S, "D": D, "ragged": ragged}
    for name, exact in (("exact", True), ("entropic", False)):
        error = 100 * (barycentric_transport(x, mask, exact=exact) / best - 1)
        seconds = timed(lambda exact=exact: barycentric_transport(x, mask, exact=exact))
        row[name] = {"error_max_percent": error.max().item(), "error_mean_percent": error.mean().item()}
        row[name] |= {"ms_a_group": 1000 * seconds / GROUPS, "times_faster_than_one_restart": one / seconds}
    return row


def main() -> None:
    """Measure every kind, shape and raggedness, and print a table."""
    torch.set_num_threads(1)
    rows = []
    for kind in (independent, steps, walks):
        for G, S, D in SHAPES:
            for ragged in (False, True):
                rows.append(row := measure(kind, G, S, D, ragged))
                cells = " | ".join(
                    f"{row[f]['error_mean_percent']:+6.2f} {row[f]['error_max_percent']:+6.2f} "
                    f"{row[f]['ms_a_group']:6.2f} {row[f]['times_faster_than_one_restart']:5.1f}x"
                    for f in ("exact", "entropic")
                )
                print(
                    f"{row['kind']:12} G={G:<3} S={S} D={D:<4} {'ragged' if ragged else 'equal ':6} | {cells}",
                    flush=True,
                )
    versions = {name: version(name) for name in ("torch", "POT", "numpy")} | {"python": platform.python_version()}
    result = {"versions": versions, "device": f"{platform.machine()} CPU, 1 thread", "rows": rows}
    (Path(__file__).parent / "results" / "barycentre.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
