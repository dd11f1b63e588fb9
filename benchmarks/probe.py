"""Time, memory and sketch error of the per-response gradients of ``gcpo.probe``.

Time: one batch of random tokens, groups of 8, one thread, float32; variants in turn, medians of ratios, as many as a
case says.

    plain   forward and backward with weight gradients accumulated, logits at response positions only, as trainers do
    exact   ``ResponseGradients.grams``
    sketch  the same with ``dim``
    vmap    ``torch.func.vmap(grad)``, a few responses at a time, the gradients of a group kept and multiplied
    loop    a forward and a backward pass per response, likewise
    ... gradients only   the same with the gradients thrown away, which leaves out half of the job

Memory: resident peak over what was resident before, two passes, a process for each variant. Exactness: against
autograd, one response at a time, in the precision of the model.

Sketch: groups sampled as in ``scores.py``; median relative error of both variances and Spearman correlation over
groups, the worst of SEEDS seeds (one for the chat model). Norms: cheap stand-ins for the length of a response's
gradient.

    python benchmarks/probe.py --model ./smollm2 --cache tokens.pt  ->  benchmarks/results/probe.json
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from scipy.stats import spearmanr
from scores import Sample, chat_samples, load, starter_samples
from torch import Tensor
from torch.func import functional_call

from gcpo.policies import resolve
from gcpo.probe import ResponseGradients, score_variance, weighted_variance
from gcpo.semantics.scores import score_gram

G, SEEDS, MODEL_GROUPS = 8, 5, 16
DIMS = [1024, 4096, 16384, 65536]
MODEL_DIMS = [16384, 65536]


class Batch(NamedTuple):
    """Random tokens: whole prompts, whole responses."""

    ids: Tensor
    attention: Tensor
    mask: Tensor

    def rows(self, part: slice) -> "Batch":
        """Some of the responses."""
        return Batch(*(x[part] for x in self))


class Case(NamedTuple):
    """What is timed: a model, the batch, and how many responses vmap takes at a time."""

    name: str
    path: str
    responses: int
    prompt: int
    tokens: int
    at_a_time: int
    repeats: int

    def batch(self, vocabulary: int) -> Batch:
        """Random tokens, the same in every process."""
        torch.manual_seed(0)
        ids = torch.randint(3, vocabulary, (self.responses, self.prompt + self.tokens))
        mask = (torch.arange(ids.shape[1]) >= self.prompt).expand(ids.shape)
        return Batch(ids, torch.ones_like(ids), mask.contiguous())


def log_probs(model: Callable[..., Any], ids: Tensor, tokens: int, **inputs: Any) -> Tensor:
    """Summed log-probability of the last ``tokens`` tokens of each row."""
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=tokens + 1, **inputs).logits[:, :-1]
    return torch.log_softmax(logits, -1).gather(-1, ids[:, -tokens:, None]).sum((-2, -1))


def plain(model: Any, batch: Batch, tokens: int) -> None:
    log_probs(model, batch.ids, tokens, attention_mask=batch.attention).sum().backward()
    model.zero_grad(set_to_none=True)


Gradients = Iterator[tuple[Tensor, ...]]
"""Of some responses at a time: a tensor a parameter, responses first."""


def loop(model: Any, batch: Batch, tokens: int) -> Gradients:
    parameters = list(model.parameters())
    for row in batch.ids.split(1):
        gradients = torch.autograd.grad(log_probs(model, row, tokens).sum(), parameters)
        yield tuple(g.unsqueeze(0) for g in gradients)


def by_vmap(model: Any, batch: Batch, tokens: int, at_a_time: int) -> Gradients:
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def log_prob(parameters: dict[str, Tensor], row: Tensor) -> Tensor:
        def call(**inputs: Any) -> Any:
            return functional_call(model, parameters, kwargs=inputs)

        return log_probs(call, row.unsqueeze(0), tokens).squeeze(0)

    gradient = torch.func.vmap(torch.func.grad(log_prob), in_dims=(None, 0))
    for rows in batch.ids.split(at_a_time):
        yield tuple(gradient(parameters, rows).values())


def multiplied(gradients: Gradients) -> Tensor:
    """Gram matrices from the gradients of a group at a time."""
    found, kept = [], []
    for part in gradients:
        kept.append(part)
        if sum(len(part[0]) for part in kept) == G:
            products = torch.zeros(G, G)
            for p in range(len(part)):
                rows = torch.cat([part[p].flatten(1) for part in kept])
                products += rows @ rows.T
            found.append(products)
            kept = []
    return torch.stack(found)


def variants(model: Any, case: Case) -> dict[str, Callable[[], object]]:
    batch, probe = case.batch(model.config.vocab_size), ResponseGradients(model)

    def one_by_one() -> Gradients:
        return loop(model, batch, case.tokens)

    def vectorised() -> Gradients:
        return by_vmap(model, batch, case.tokens, case.at_a_time)

    return {
        "plain": lambda: plain(model, batch, case.tokens),
        "exact": lambda: probe.grams(*batch, group_size=G),
        "sketch": lambda: probe.grams(*batch, group_size=G, dim=16384),
        "vmap": lambda: multiplied(vectorised()),
        "vmap, gradients only": lambda: deque(vectorised(), maxlen=0),
        "loop": lambda: multiplied(one_by_one()),
        "loop, gradients only": lambda: deque(one_by_one(), maxlen=0),
    }


def timed(model: Any, case: Case) -> dict[str, dict[str, float]]:
    """Seconds and ratios to plain of each variant, in turn."""
    table = variants(model, case)
    seconds: dict[str, list[float]] = {name: [] for name in table}
    for turn in range(case.repeats + 1):
        for name, run in table.items():
            start = time.perf_counter()
            run()
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    rows = {}
    for name, row in seconds.items():
        ratios = [a / b for a, b in zip(row, seconds["plain"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        rows[name] = {"seconds": statistics.median(row), "of_plain": middle, "quartiles": (low, high)}
    return rows


def resident(field: str) -> float:
    """Memory of this process in MiB: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def peak(case: Case, name: str) -> float:
    """Of one variant, in this process."""
    model, _ = load(case.path)
    with torch.no_grad():
        model(input_ids=torch.ones(1, 2, dtype=torch.long))  # weights mapped from a file become resident
    run = variants(model, case)[name]
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = resident("VmRSS")
    run()
    run()
    return resident("VmHWM") - before


def peak_elsewhere(case: Case, name: str) -> float:
    command = [sys.executable, __file__, "--peak", name, "--case", json.dumps(case)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def exactness(model: Any, case: Case) -> float:
    """Largest error of one group's Gram matrix over its largest entry."""
    batch = case.batch(model.config.vocab_size).rows(slice(G if case.responses > G else 4))
    gram = ResponseGradients(model).grams(*batch, group_size=len(batch.ids))[0]
    rows = []
    for row in batch.ids.split(1):
        parts = torch.autograd.grad(log_probs(model, row, case.tokens).sum(), list(model.parameters()))
        rows.append(torch.cat([part.flatten() for part in parts]))
    truth = torch.zeros_like(gram)
    for columns in torch.arange(rows[0].numel()).split(2**22):
        part = torch.stack([row[columns[0] : columns[-1] + 1] for row in rows]).double()
        truth += part @ part.T
    return float((gram - truth).abs().max() / truth.abs().max())


def inputs(drawn: Sample, groups: slice) -> Batch:
    rows = slice(groups.start * G, groups.stop * G)
    mask = torch.nn.functional.pad(drawn.mask, (drawn.ids.shape[1] - drawn.mask.shape[1], 0))
    return Batch(drawn.ids[rows], drawn.attention[rows], mask[rows])


def grams(probe: ResponseGradients, drawn: Sample, groups: int, step: int, **sketch: int) -> Tensor:
    parts = [inputs(drawn, slice(b, min(b + step, groups))) for b in range(0, groups, step)]
    return torch.cat([probe.grams(*part, group_size=G, **sketch) for part in parts])


def relative_error(found: Tensor, truth: Tensor) -> float:
    """Median over the groups whose responses are not all the same."""
    differ = truth > 1e-6 * truth.max()
    return float(((found - truth).abs() / truth)[differ].median())


def sketched(
    model: Any, drawn: Sample, groups: int, step: int, dims: list[int], seeds: int
) -> list[dict[str, object]]:
    """Error of both variances for each number of features."""
    probe, rewards = ResponseGradients(model), drawn.rewards[:groups]
    advantages = (rewards - rewards.mean(-1, keepdim=True)).double()
    live = rewards.amax(-1) > rewards.amin(-1)
    exact = grams(probe, drawn, groups, step)
    truth = score_variance(exact), weighted_variance(exact, advantages)[live]
    rows = []
    for dim in dims:
        runs = []
        for seed in range(seeds):
            K = grams(probe, drawn, groups, step, dim=dim, seed=seed)
            found = score_variance(K), weighted_variance(K, advantages)[live]
            error = [relative_error(a, b) for a, b in zip(found, truth, strict=True)]
            rank = [float(spearmanr(a, b).statistic) for a, b in zip(found, truth, strict=True)]
            runs.append((*error, *(-r for r in rank)))
        worst = [max(column) for column in zip(*runs, strict=True)]
        row = {"sample": drawn.name, "groups": groups, "live_groups": int(live.sum()), "dim": dim}
        row |= {"error": worst[0], "error_weighted": worst[1], "spearman": -worst[2], "spearman_weighted": -worst[3]}
        print(row, flush=True)
        rows.append(row)
    return rows


def stand_ins(model: Any, drawn: Sample) -> dict[str, Callable[[], Tensor]]:
    """Estimates of the length of each response's gradient, (B, G), cheapest first."""
    layers = len(model.model.layers)
    last, mask = f"layers.{layers - 1}.", drawn.mask
    groups = len(drawn.rewards)

    def only(chosen: Callable[[str], bool]) -> Callable[[], Tensor]:
        probe = ResponseGradients(model, chosen)
        return lambda: lengths(grams(probe, drawn, groups, 8))

    def head() -> Tensor:
        taken: list[Tensor] = []
        handle = model.lm_head.register_forward_pre_hook(lambda _, args: taken.append(args[0]))
        T = mask.shape[1]
        with torch.no_grad():
            for b in range(0, groups, 8):
                part = inputs(drawn, slice(b, b + 8))
                model(input_ids=part.ids, attention_mask=part.attention, use_cache=False, logits_to_keep=T + 1)
        handle.remove()
        states = torch.cat([x[:, -T - 1 : -1] for x in taken])
        return lengths(score_gram(states, model.lm_head.weight, drawn.ids[:, -T:], mask, G))

    return {
        "tokens of the response": lambda: mask.sum(-1).view(-1, G).double(),
        "head, in closed form": head,
        "last norm": only(lambda name: name == "model.norm.weight"),
        "last block, down_proj": only(lambda name: last + "mlp.down_proj" in name),
        "last block": only(lambda name: last in name),
        "last two blocks": only(lambda name: last in name or f"layers.{layers - 2}." in name),
        "all norms": only(lambda name: "norm" in name),
        "all down_proj": only(lambda name: "down_proj" in name),
        "all blocks": only(lambda name: "layers." in name),
    }


def lengths(K: Tensor) -> Tensor:
    return K.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()


def compared(model: Any, drawn: Sample) -> list[dict[str, object]]:
    """Spearman correlation of each stand-in with the full length, over all responses and within groups; its cost."""
    truth = lengths(grams(ResponseGradients(model), drawn, len(drawn.rewards), 8))
    table = stand_ins(model, drawn)
    start = time.perf_counter()
    with torch.no_grad():
        for b in range(0, len(drawn.rewards), 8):
            part = inputs(drawn, slice(b, b + 8))
            model(
                input_ids=part.ids, attention_mask=part.attention, use_cache=False, logits_to_keep=drawn.mask.shape[1]
            )
    forward, rows = time.perf_counter() - start, []
    for name, estimate in table.items():
        start = time.perf_counter()
        found = estimate()
        seconds = time.perf_counter() - start
        within = [spearmanr(a, b).statistic for a, b in zip(found, truth, strict=True) if a.unique().numel() > 1]
        row: dict[str, object] = {"sample": drawn.name, "estimate": name, "of_a_forward_pass": seconds / forward}
        row |= {"spearman": float(spearmanr(found.flatten(), truth.flatten()).statistic)}
        row |= {"spearman_within_groups": float(torch.tensor(within).nanmean())}
        print(row, flush=True)
        rows.append(row)
    return rows


def measure(case: Case) -> dict[str, object]:
    model, _ = load(case.path)
    rows = timed(model, case)
    for name, row in rows.items():
        row["peak_mib"] = peak_elsewhere(case, name)
        row["peak_of_plain"] = row["peak_mib"] / rows["plain"]["peak_mib"]
        print(
            f"{case.name:12} {name:12}",
            {key: row[key] for key in ("seconds", "of_plain", "peak_of_plain")},
            flush=True,
        )
    error = exactness(model, case)
    print(f"{case.name:12} largest error {error:.1e}", flush=True)
    return case._asdict() | {"path": None, "variants": rows, "largest_relative_error": error}


def chat(path: Path, cache: Path | None) -> tuple[Any, Sample]:
    model, tokenizer = load(str(path))
    if cache and cache.exists():
        return model, Sample(*torch.load(cache)[0])
    drawn = chat_samples(model, tokenizer, path.name)
    if cache:
        torch.save([tuple(x) for x in drawn], cache)
    return model, drawn[0]


def main() -> None:
    """Measure the starter policy and, where one is given, a chat model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="directory of a chat model")
    parser.add_argument("--cache", type=Path, help="file that keeps the chat model's sampled tokens")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        print(peak(Case(*options.case), options.peak))
        return
    cases = [Case("starter", resolve("starter"), 256, 8, 24, 8, 9)]
    if options.model:
        cases.append(Case(options.model.name, str(options.model), 8, 32, 64, 4, 5))
    result: dict[str, object] = {"cost": [measure(case) for case in cases]}
    torch.manual_seed(0)
    model, tokenizer = load(resolve("starter"))
    samples = starter_samples(model, tokenizer)
    groups = len(samples[0].rewards)
    sketches = [row for drawn in samples for row in sketched(model, drawn, groups, 8, DIMS, SEEDS)]
    result["norms"] = [row for drawn in samples for row in compared(model, drawn)]
    if options.model:
        sketches += sketched(*chat(options.model, options.cache), MODEL_GROUPS, 1, MODEL_DIMS, 1)
    versions = {name: version(name) for name in ("torch", "transformers")} | {"python": platform.python_version()}
    device = f"{platform.machine()} CPU, 1 thread, float32"
    result = {"versions": versions, "device": device, **result, "sketches": sketches}
    (Path(__file__).parent / "results" / "probe.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
