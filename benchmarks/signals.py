"""Time of every signal over a floor nothing can go under, against peers on the same input, and how it grows.

Method: B, G, D = 256, 16, 384 in float32, one thread. The floor is one batched Gram product of the embeddings and one
read of them. Each repetition times the floor and the signal in turn, enough calls of each to fill SLICE seconds, and
gives one ratio; the table has the median and the quartiles of REPEATS ratios. On a CPU the clock is the CPU time of
the process, so that what else runs on the machine does not count; on CUDA it is wall clock between synchronisations.
A signal is timed from what a caller has: the graph signals include the affinity from embeddings. Slow rows are
measured on fewer groups and scaled to B, and say so. The groups are mixtures of clusters, not isotropic noise.

Peers get the same input as ours in the form they want, built beforehand: the graph estimators of lm-polygraph a
similarity matrix (ours then too, without the affinity), its semantic entropy ready classes, POT a group a call. They
run in float32 where they can. lm-polygraph's rows need it installed (tests/signals/parity/requirements.txt).

Growth: one size doubles at a time; the exponent is the slope of log time over log size.

    python benchmarks/signals.py [--markdown] [--only NAME ...]  ->  benchmarks/results/signals.json
    python benchmarks/signals.py --device cuda                   ->  benchmarks/results/signals-cuda.json

On CUDA each signal also has the bytes it must move at least (inputs once in, values once out) over the time and over
the bandwidth of a large copy measured in the same run.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: its BLAS takes the number of threads at import

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gcpo import signals

SIZES = {"B": 256, "G": 16, "D": 384, "S": 8}
GROWTH = (0.5, 1, 2, 4)
REPEATS, SLICE = 9, 0.02
WORDS = 60


class Inputs:
    """Whatever a signal may take, drawn when it is first asked for: groups of a few clusters of uneven size."""

    def __init__(self, B: int, G: int, D: int, S: int, device: str = "cpu"):
        self.B, self.G, self.D, self.S, self.device = B, G, D, S, device
        self.random = torch.Generator().manual_seed(0)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.random)

    def _mixture(self, clusters: Tensor, noise: Tensor) -> Tensor:
        """Noise around the cluster of each response, clusters apart by another distance in every group."""
        ways = self.labels.cpu().view(self.B, self.G, *[1] * (clusters.ndim - 2)).expand(-1, -1, *clusters.shape[2:])
        spread = torch.rand(self.B, *[1] * (clusters.ndim - 1), generator=self.random)
        common = self._normal(self.B, *[1] * (clusters.ndim - 2), self.D)
        return (common + 2 * spread * clusters.gather(1, ways) + 0.3 * noise).to(self.device)

    @cached_property
    def labels(self) -> Tensor:
        """Cluster of each response."""
        shares = (1.5 * self._normal(self.B, 6)).softmax(-1)
        return torch.multinomial(shares, self.G, replacement=True, generator=self.random).to(self.device)

    @cached_property
    def states(self) -> Tensor:
        """A vector a response, as long as hidden states are: about 30 at 384 features."""
        return self._mixture(self._normal(self.B, 6, self.D), self._normal(self.B, self.G, self.D))

    @cached_property
    def embeddings(self) -> Tensor:
        """The same at length 1, as sentence encoders give it."""
        return torch.nn.functional.normalize(self.states, dim=-1)

    @cached_property
    def one_point(self) -> Tensor:
        """The embeddings as clouds of one point."""
        return self.embeddings.unsqueeze(2)

    @cached_property
    def points(self) -> Tensor:
        """A cloud a response, its steps in any order."""
        steps = self._mixture(self._normal(self.B, 6, self.S, self.D), self._normal(self.B, self.G, self.S, self.D))
        order = torch.rand(self.B, self.G, self.S, 1, generator=self.random).argsort(2).to(self.device)
        return steps.gather(2, order.expand_as(steps))

    @cached_property
    def similarity(self) -> Tensor:
        """Affinity of the embeddings."""
        return signals.affinity(self.embeddings)

    @cached_property
    def lengths(self) -> Tensor:
        """Tokens a response."""
        return torch.randint(20, 400, (self.B, self.G), generator=self.random).to(self.device)

    @cached_property
    def log_probs(self) -> Tensor:
        """Log-probability of each response."""
        return -self.lengths * (0.2 + 0.2 * torch.rand(self.B, self.G, generator=self.random)).to(self.device)

    @cached_property
    def rewards(self) -> Tensor:
        """0 or 1, at another rate in every group."""
        rate = torch.rand(self.B, 1, generator=self.random)
        return (torch.rand(self.B, self.G, generator=self.random) < rate).float().to(self.device)

    @property
    def advantages(self) -> Tensor:
        """Rewards less their mean."""
        return self.rewards - self.rewards.mean(-1, keepdim=True)

    @cached_property
    def texts(self) -> list[list[str]]:
        """A way of telling a cluster, each response with a sixth of its words replaced."""
        ways = torch.randint(0, 800, (self.B, 6, WORDS), generator=self.random)
        words = ways.gather(1, self.labels.cpu().unsqueeze(-1).expand(-1, -1, WORDS))
        replaced = torch.rand(words.shape, generator=self.random) < 1 / 6
        words = torch.where(replaced, torch.randint(0, 800, words.shape, generator=self.random), words)
        return [[" ".join(f"word{w}" for w in response) for response in group] for group in words.tolist()]


@dataclass(frozen=True)
class Row:
    """A signal to time: its name in ``gcpo.signals``, what it reads, the sizes it grows with, and its target."""

    name: str
    reads: tuple[str, ...]
    axes: str = "BGD"
    target: float | None = None
    affinity: bool = False
    groups: int = SIZES["B"]
    note: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Name with what tells apart the rows of one signal."""
        return f"{self.name} ({self.note})" if self.note else self.name

    @property
    def missing(self) -> bool:
        """Whether this version of gcpo lacks what the row needs."""
        return not all(hasattr(signals, name) for name in (self.name, *["affinity"] * self.affinity))

    def call(self, x: Inputs) -> Callable[[], Tensor]:
        """The signal as a caller writes it."""
        f, (first, *rest) = partial(getattr(signals, self.name), **self.settings), (getattr(x, r) for r in self.reads)
        return (lambda: f(signals.affinity(first))) if self.affinity else (lambda: f(first, *rest))

    def bytes(self, x: Inputs) -> int:
        """What must be moved at least: inputs in, values out."""
        return sum(t.nbytes for t in (getattr(x, r) for r in self.reads) if isinstance(t, Tensor)) + 4 * x.B


ROWS = [
    Row("cosine_dispersion", ("embeddings",), target=1.3),
    Row("von_neumann_entropy", ("embeddings",), target=3.5),
    Row("effective_rank", ("embeddings",)),
    Row("eigen_score", ("embeddings",), target=2.5),
    Row("eigen_score", ("states",), target=2.5, note="hidden states"),
    Row("degree_dispersion", ("embeddings",), affinity=True),
    Row("laplacian_eigenvalues", ("embeddings",), affinity=True),
    Row("eccentricity", ("embeddings",), affinity=True),
    Row("kernel_language_entropy", ("embeddings",), target=6, affinity=True),
    Row("kernel_language_entropy", ("embeddings",), affinity=True, note="Matérn", settings={"kernel": "matern"}),
    Row("barycentric_transport", ("one_point",), note="1 point"),
    Row("barycentric_transport", ("points",), "BGSD", groups=8, note="8 points"),
    Row("barycentric_transport", ("points",), "BGSD", groups=8, note="8 points, fast", settings={"exact": False}),
    Row("semantic_entropy", ("labels",), "BG", target=0.3),
    Row("rao_semantic_entropy", ("labels", "log_probs", "lengths"), "BG"),
    Row("semantic_sets", ("labels",), "BG"),
    Row("predictive_entropy", ("log_probs",), "BG"),
    Row("normalized_predictive_entropy", ("log_probs", "lengths"), "BG"),
    Row("lexical_dispersion", ("texts",), "BG", groups=16, note=f"{WORDS} words"),
    Row("reward_dispersion", ("rewards",), "BG"),
    Row("reward_spread", ("rewards",), "BG"),
    Row("reward_quantile_dispersion", ("rewards",), "BG"),
    Row("pass_rate_margin", ("rewards",), "BG"),
    Row("score_dispersion", ("embeddings",)),
    Row("weighted_score_dispersion", ("embeddings", "advantages")),
]


@dataclass(frozen=True)
class Peer:
    """A function of another library that does what one of ours does, and how much faster ours shall be."""

    name: str
    ours: Row
    prepare: Callable[[Inputs], Callable[[], object]]
    target: float | None = None


def peers() -> Iterable[Peer]:
    """The peers that are installed."""
    yield Peer("POT ot.emd2, a group a call", Row("barycentric_transport", ("one_point",)), _emd2, 25)
    if find_spec("lm_polygraph") is None:
        print("lm-polygraph is not installed: its rows are left out (see tests/signals/parity/requirements.txt).\n")
        return
    from lm_polygraph.estimators import (
        DegMat,
        Eccentricity,
        EigenScore,
        EigValLaplacian,
        KernelLanguageEntropy,
        LexicalSimilarity,
        SemanticEntropy,
    )

    graph = [
        ("degree_dispersion", DegMat, None),
        ("laplacian_eigenvalues", EigValLaplacian, 4),
        ("eccentricity", Eccentricity, None),
        ("kernel_language_entropy", KernelLanguageEntropy, 5),
    ]
    for name, estimator, target in graph:
        yield Peer(f"lm-polygraph {estimator.__name__}", Row(name, ("similarity",)), _estimate(estimator()), target)
    yield Peer("lm-polygraph EigenScore", Row("eigen_score", ("embeddings",)), _estimate(EigenScore()), 25)
    states = Row("eigen_score", ("states",), note="hidden states")
    yield Peer(
        "lm-polygraph EigenScore", states, lambda x: partial(EigenScore(), {"sample_embeddings": x.states.numpy()}), 25
    )
    frequency = SemanticEntropy(class_probability_estimation="frequency")
    yield Peer("lm-polygraph SemanticEntropy frequency", Row("semantic_entropy", ("labels",)), _estimate(frequency))
    lexical = Row("lexical_dispersion", ("texts",), groups=4, note=f"{WORDS} words")
    yield Peer("lm-polygraph LexicalSimilarity rougeL", lexical, _estimate(LexicalSimilarity("rougeL")))


def _emd2(x: Inputs) -> Callable[[], object]:
    import ot

    embeddings, weights = x.embeddings.numpy(), np.full(x.G, 1 / x.G)

    def cost(group: np.ndarray) -> float:
        unit = group / np.linalg.norm(group, axis=-1, keepdims=True)
        return ot.emd2(weights, np.ones(1), ot.dist(unit, unit.mean(0, keepdims=True)))

    return lambda: [cost(group) for group in embeddings]


STATS = {
    "sample_texts": lambda x: x.texts,
    "sample_embeddings": lambda x: x.embeddings.numpy(),
    "semantic_matrix_entail": lambda x: x.similarity.numpy(),
    "semantic_matrix_contra": lambda x: np.ones_like(x.similarity.numpy()),  # makes its graph W, as ours
    "semantic_classes_entail": lambda x: classes(x.labels.tolist()),
}
"""lm-polygraph's statistics from our inputs."""


def classes(labels: list[list[int]]) -> dict[str, Any]:
    """lm-polygraph's tables of semantic classes from labels."""
    orders = [list(dict.fromkeys(group)) for group in labels]
    members = [
        [[i for i, k in enumerate(g) if k == c] for c in order] for g, order in zip(labels, orders, strict=True)
    ]
    return {
        "sample_to_class": [[order.index(k) for k in g] for g, order in zip(labels, orders, strict=True)],
        "class_to_sample": members,
    }


def _estimate(estimator: Any) -> Callable[[Inputs], Callable[[], object]]:
    return lambda x: partial(estimator, {key: STATS[key](x) for key in estimator.stats_dependencies})


@dataclass(frozen=True)
class Clock:
    """Seconds a call takes, on the CPU by the CPU time of the process, on CUDA by wall clock."""

    device: str

    def _now(self) -> float:
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def __call__(self, f: Callable[[], object], calls: int) -> float:
        """Mean time of a call over so many."""
        started = self._now()
        for _ in range(calls):
            f()
        return (self._now() - started) / calls

    def together(self, functions: Sequence[Callable[[], object]], repeats: int = REPEATS) -> list[list[float]]:
        """Times of each function, taken in turn, so that a change of the machine's speed meets them all."""
        calls = []
        for f in functions:
            self(f, 1)  # the first call draws inputs and compiles
            calls.append(max(1, math.ceil(SLICE / max(self(f, 1), 1e-7))))
        rounds = [[self(f, n) for f, n in zip(functions, calls, strict=True)] for _ in range(repeats)]
        return [list(times) for times in zip(*rounds, strict=True)]


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "q1": low, "q3": high}


def floor(x: Inputs) -> Callable[[], object]:
    """One batched Gram product and one read of the embeddings."""
    e = x.embeddings
    return lambda: (torch.bmm(e, e.mT), e.sum())


def over_floor(row: Row, base: Inputs, clock: Clock) -> dict[str, Any]:
    """A signal's time over the floor's."""
    x = base if row.groups == base.B else Inputs(row.groups, base.G, base.D, base.S, base.device)
    below, times = clock.together([floor(base), row.call(x)])
    scale = base.B / row.groups
    return {
        "signal": row.title,
        "groups": row.groups,
        "ms": spread(1000 * scale * t for t in times),
        "over_floor": spread(scale * t / f for t, f in zip(times, below, strict=True)),
        "floor_ms": spread(1000 * f for f in below),
        "target": row.target,
        "bytes": row.bytes(x),
    }


def against(peer: Peer, base: Inputs, clock: Clock) -> dict[str, Any]:
    """A peer's time over ours on the same input."""
    x = base if peer.ours.groups == base.B else Inputs(peer.ours.groups, base.G, base.D, base.S)
    ours, theirs = clock.together([peer.ours.call(x), peer.prepare(x)])
    return {
        "signal": peer.ours.title,
        "peer": peer.name,
        "groups": peer.ours.groups,
        "ours_ms": spread(1000 * t for t in ours),
        "peer_ms": spread(1000 * t for t in theirs),
        "times_faster": spread(p / o for o, p in zip(ours, theirs, strict=True)),
        "target": peer.target,
    }


def growth(row: Row, axis: str, device: str, clock: Clock) -> dict[str, Any]:
    """Time of a signal as one size doubles, and the exponent of the fitted power."""
    sizes = [int(factor * (SIZES | {"B": row.groups})[axis]) for factor in GROWTH]
    inputs = [Inputs(**(SIZES | {"B": row.groups} | {axis: size}), device=device) for size in sizes]
    medians = [statistics.median(t) for t in clock.together([row.call(x) for x in inputs], repeats=5)]
    exponent = statistics.linear_regression([math.log(s) for s in sizes], [math.log(t) for t in medians]).slope
    return {
        "signal": row.title,
        "axis": axis,
        "sizes": sizes,
        "ms": [1000 * t for t in medians],
        "exponent": exponent,
        "last_doubling": math.log2(medians[-1] / medians[-2]),
    }


def bandwidth(clock: Clock) -> float:
    """Bytes a second of a copy of 1 GiB, read and written."""
    source = torch.empty(2**30, dtype=torch.uint8, device=clock.device)
    target = torch.empty_like(source)
    (times,) = clock.together([lambda: target.copy_(source)])
    return 2 * source.nbytes / statistics.median(times)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool) -> str:
    """Rows under a header, aligned or as Markdown."""
    if markdown:
        return "\n".join("| " + " | ".join(r) + " |" for r in (header, ["---"] * len(header), *rows)) + "\n"
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in (header, *rows)) + "\n"


def number(x: float) -> str:
    """Three significant digits, none of them an exponent."""
    return f"{x:.0f}" if x >= 99.5 else f"{x:.{max(0, 2 - math.floor(math.log10(x)))}f}" if x >= 0.01 else f"{x:.4f}"


def shown(s: dict[str, float], unit: str = "") -> str:
    """A median with its quartiles."""
    return f"{number(s['median'])}{unit} [{number(s['q1'])}–{number(s['q3'])}]"


def verdict(value: float, target: float | None, least: bool) -> str:
    """The target and whether it is met."""
    if target is None:
        return ""
    met = value >= target if least else value <= target
    return f"{'≥' if least else '≤'} {target:g} {'met' if met else 'MISSED'}"


def tables(result: dict[str, Any], markdown: bool) -> Iterable[str]:
    """Everything measured, a table a question."""
    peak, rows = result["bandwidth"], result["floor"]
    scaled = {row["signal"]: f", from {row['groups']} groups" for row in rows if row["groups"] != SIZES["B"]}
    cells = [
        [
            row["signal"] + scaled.get(row["signal"], ""),
            shown(row["ms"]),
            shown(row["over_floor"]),
            verdict(row["over_floor"]["median"], row["target"], least=False),
        ]
        + ([f"{100 * row['bandwidth_share']:.1f} %"] if peak else [])
        for row in rows
    ]
    header = ["signal", "ms", "× floor", "target"] + (["of peak bandwidth"] if peak else [])
    yield table(header, cells, markdown)
    if result["peers"]:
        cells = [
            [
                row["signal"],
                row["peer"] + (f", {row['groups']} groups" if row["groups"] != SIZES["B"] else ""),
                shown(row["ours_ms"]),
                shown(row["peer_ms"]),
                shown(row["times_faster"], "×"),
                verdict(row["times_faster"]["median"], row["target"], least=True),
            ]
            for row in result["peers"]
        ]
        yield table(["signal", "peer", "ours, ms", "peer, ms", "times faster", "target"], cells, markdown)
    exponents = {(row["signal"], row["axis"]): f"{row['exponent']:.2f}" for row in result["growth"]}
    names = dict.fromkeys(name for name, _ in exponents)
    if names:
        cells = [[name, *(exponents.get((name, axis), "") for axis in SIZES)] for name in names]
        yield table(["exponent in", *SIZES], cells, markdown)


def measure(rows: Sequence[Row], device: str, markdown: bool) -> dict[str, Any]:
    """All measurements of the rows."""
    clock, base = Clock(device), Inputs(**SIZES, device=device)
    peak = bandwidth(clock) if device != "cpu" else None
    timed = [over_floor(row, base, clock) for row in rows]
    if peak:
        for row in timed:
            seconds = row["ms"]["median"] / 1000 * row["groups"] / SIZES["B"]
            row["bandwidth_share"] = row["bytes"] / seconds / peak
    names = {row.name for row in rows}
    compared = [against(p, base, clock) for p in peers() if p.ours.name in names] if device == "cpu" else []
    grown = [growth(row, axis, device, clock) for row in rows for axis in row.axes]
    result = {
        "versions": versions(),
        "device": torch.cuda.get_device_name() if device != "cpu" else f"{platform.machine()} CPU, 1 thread",
        "sizes": SIZES,
        "repeats": REPEATS,
        "bandwidth": peak,
        "floor": timed,
        "peers": compared,
        "growth": grown,
    }
    print("\n".join(tables(result, markdown)))
    return result


def versions() -> dict[str, str]:
    """What the result depends on."""
    names = ["torch", "numpy", "POT"] + ["lm-polygraph", "scipy"] * (find_spec("lm_polygraph") is not None)
    return {name: version(name) for name in names} | {"python": platform.python_version()}


def main() -> None:
    """Measure, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="signals to measure; nothing is written then")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a CUDA device, found none: run it where torch.cuda.is_available() is true.")
    torch.set_num_threads(1)
    rows = [row for row in ROWS if not row.missing and row.name in (arguments.only or [row.name])]
    if absent := sorted({row.name for row in ROWS if row.missing}):
        print(f"Not in this version of gcpo: {', '.join(absent)}.\n")
    if unknown := sorted(set(signals.SIGNALS) - {row.name for row in ROWS}):
        print(f"Signals without a row here: {', '.join(unknown)}.\n")
    result = measure(rows, arguments.device, arguments.markdown)
    if not arguments.only:
        name = "signals.json" if arguments.device == "cpu" else f"signals-{arguments.device}.json"
        path = Path(__file__).parent / "results" / name
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
