"""What a sentence-transformers model and hashed n-grams see of real solutions, and what the cache saves.

Method: PROBLEMS solutions from a JSONL file (field ``answer``; GSM8K's calculator annotations are removed). Of each,
groups of G = 8 texts are made that differ in one known way:

    identical        the solution, eight times
    reordered        its lines in random orders
    one number       one random number of each copy replaced by another with as many digits
    all numbers      every number replaced so
    other problems   solutions of eight different problems

Reported: cosine dispersion of the groups, mean and standard deviation over groups; meanings found by the cosine at
THRESHOLDS; Spearman correlation of both embedders over all pairs of solutions and over the dispersions of groups.
Throughput: texts a second on GROUPS groups with few distinct responses, by the bare model and by ``embed`` with empty
and with filled cache; one thread, median of REPEATS, forms interleaved.

    python benchmarks/embedders.py --model PATH_OR_ID --data FILE.jsonl  ->  benchmarks/results/embedders.json
"""

import argparse
import json
import platform
import random
import re
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from scipy.stats import spearmanr
from torch import Tensor

from gcpo.semantics import HashedNgrams, SentenceEncoder, TextEmbedder, cluster_by_cosine
from gcpo.signals import cosine_dispersion

G, PROBLEMS, PAIRED, GROUPS, REPEATS = 8, 64, 400, 24, 3
THRESHOLDS = (0.8, 0.9, 0.95)
NUMBER = re.compile(r"\d+")


def other(number: re.Match[str]) -> str:
    """Another number with as many digits."""
    digits = len(number[0])
    low = 10 ** (digits - 1) if digits > 1 else 0
    drawn = random.randrange(low, 10**digits - 1)
    return str(drawn + (drawn >= int(number[0])))


def one_number(text: str) -> str:
    """``text`` with one of its numbers replaced."""
    place = random.choice(list(NUMBER.finditer(text)))
    return text[: place.start()] + other(place) + text[place.end() :]


def reordered(text: str) -> str:
    """``text`` with its lines in another order."""
    lines = text.splitlines()
    return "\n".join(random.sample(lines, len(lines)))


def kinds(texts: list[str]) -> dict[str, list[list[str]]]:
    """Groups of each kind."""
    mine = texts[:PROBLEMS]
    return {
        "identical": [[t] * G for t in mine],
        "reordered": [[reordered(t) for _ in range(G)] for t in mine],
        "one number": [[one_number(t) for _ in range(G)] for t in mine],
        "all numbers": [[NUMBER.sub(other, t) for _ in range(G)] for t in mine],
        "other problems": [random.sample(texts, G) for _ in mine],
    }


def dispersions(embedder: TextEmbedder, groups: list[list[str]]) -> tuple[Tensor, dict[str, float]]:
    """Cosine dispersion of each group, and the mean number of meanings at each threshold."""
    x = embedder.embed([text for group in groups for text in group]).unflatten(0, (-1, G))
    meanings = {str(t): (cluster_by_cosine(x, t) == torch.arange(G)).sum(-1).float().mean().item() for t in THRESHOLDS}
    return cosine_dispersion(x), meanings


def cosines(embedder: TextEmbedder, texts: list[str]) -> Tensor:
    """Cosine of every pair of texts."""
    u = torch.nn.functional.normalize(embedder.embed(texts), dim=-1)
    return (u @ u.T)[tuple(torch.triu_indices(len(texts), len(texts), 1))]


def seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def throughput(embedder: TextEmbedder, make: Callable[[], TextEmbedder], texts: list[str], distinct: int) -> object:
    """Texts a second on groups of G responses of which ``distinct`` are."""
    drawn = random.sample(texts, GROUPS * distinct)
    batch = [
        text for start in range(0, len(drawn), distinct) for text in drawn[start : start + distinct] * (G // distinct)
    ]
    times: dict[str, list[float]] = {"bare": [], "empty cache": [], "filled cache": []}
    for _ in range(REPEATS):
        fresh = make()
        times["bare"].append(seconds(lambda: embedder.encode(batch)))
        times["empty cache"].append(seconds(lambda fresh=fresh: fresh.embed(batch)))
        times["filled cache"].append(seconds(lambda fresh=fresh: fresh.embed(batch)))
    return {name: len(batch) / statistics.median(row) for name, row in times.items()}


def main() -> None:
    """Measure both embedders and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="sentence-transformers path or hub id")
    parser.add_argument("--data", required=True, type=Path, help="JSONL file with solutions in the field answer")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(0)
    rows = [json.loads(line)["answer"] for line in arguments.data.read_text().splitlines()]
    texts = [re.sub(r"<<.*?>>", "", row) for row in random.sample(rows, PAIRED)]
    model = SentenceEncoder(arguments.model).model
    makers: dict[str, Callable[[], TextEmbedder]] = {"model": lambda: SentenceEncoder(model), "hashed": HashedNgrams}
    embedders = {name: make() for name, make in makers.items()}
    groups = kinds(texts)
    result: dict[str, object] = {"solutions": PAIRED, "groups a kind": PROBLEMS, "G": G}
    lengths = [len(model.tokenizer(text).input_ids) for text in texts]
    result["tokens"] = {"median": statistics.median(lengths), "cut": sum(n > model.max_seq_length for n in lengths)}
    spread: dict[str, dict[str, Tensor]] = {}
    for name, embedder in embedders.items():
        table, spread[name] = {}, {}
        for kind, members in groups.items():
            spread[name][kind], meanings = dispersions(embedder, members)
            mean, deviation = spread[name][kind].mean().item(), spread[name][kind].std().item()
            table[kind] = {"cosine dispersion": mean, "std": deviation, "meanings at": meanings}
            print(f"{name:7} {kind:15} {mean:.4f} +- {deviation:.4f}  meanings {meanings}", flush=True)
        result[name] = {"groups": table}
    correlations = {"pairs of solutions": spearmanr(*(cosines(e, texts) for e in embedders.values())).statistic}
    for kind in ("reordered", "one number", "all numbers", "other problems"):
        correlations[f"groups, {kind}"] = spearmanr(*(spread[name][kind] for name in embedders)).statistic
    everything = [torch.cat(list(spread[name].values())) for name in embedders]
    result["spearman"] = correlations | {"groups, all kinds": spearmanr(*everything).statistic}
    print(result["spearman"])
    for name, make in makers.items():
        rates = {distinct: throughput(embedders[name], make, texts, distinct) for distinct in (8, 4, 1)}
        result[name] |= {"texts a second, by distinct responses of 8": rates}
        print(name, rates, flush=True)
    packages = ("torch", "sentence-transformers", "transformers")
    result["versions"] = {p: version(p) for p in packages} | {"python": platform.python_version()}
    result["device"] = f"{platform.machine()} CPU, 1 thread"
    (Path(__file__).parent / "results" / "embedders.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
