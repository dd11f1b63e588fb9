"""What the driver of a large run has to do each step: time and memory, measured on a simulated batch.

    python benchmarks/driver.py                      # every case, a process each; prints a table, writes the JSON
    python benchmarks/driver.py --case "answers, 400 characters" --n 2000
    python benchmarks/driver.py --signals            # every signal by group size
    python benchmarks/driver.py --workers 2          # what is left to the driver beside Ray actors; needs Ray

A batch of N responses in groups of 8 stands in flat, shuffled rows, as verl's V1 trainer hands it over, but for
TransferQueue and the tokenizer, which are verl's. Texts are distinct, lines of arithmetic with words between; vectors
are random. Peak memory is that of the process less what it had before the batch was made. Signals by group size and
what is left beside workers are seconds of CPU, which other processes on the machine change less than the clock's.
"""

import argparse
import json
import platform
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from gcpo.integrations.driver import Driver, Options
from gcpo.integrations.rows import arrange
from gcpo.integrations.vectors import pack, unpack
from gcpo.signals import SIGNALS

OUTPUT = Path(__file__).parent / "results" / "driver.json"
G = 8
WORDS = ["then", "so", "we", "have", "which", "gives", "hence", "the", "sum", "of", "is", "therefore", "equal", "to"]

# name -> options, responses, characters of a response or features of a vector
CASES: dict[str, tuple[dict[str, object], int, int]] = {
    "rows and rewards only": ({"recipe": "grpo"}, 100_000, 0),
    "hashed text, cosine, 400 characters": ({"recipe": "gcpo-cd"}, 20_000, 400),
    "hashed text, cosine, 4000 characters": ({"recipe": "gcpo-cd"}, 4_000, 4_000),
    "hashed text, cosine, 128k characters": ({"recipe": "gcpo-cd"}, 160, 128_000),
    "hashed text, transport, 400 characters": ({"recipe": "gcpo-bot"}, 8_000, 400),
    "hashed text, transport, 4000 characters": ({"recipe": "gcpo-bot"}, 2_000, 4_000),
    "answers, 400 characters": ({"recipe": "seed-grpo"}, 100_000, 400),
    "given vectors, cosine, D = 1536": ({"recipe": "gcpo-cd", "embedder": "policy"}, 100_000, 1536),
    "given vectors, cosine, D = 8192": ({"recipe": "gcpo-cd", "embedder": "policy"}, 20_000, 8192),
    "given points, transport, 8 x 1536": ({"recipe": "gcpo-bot", "embedder": "policy"}, 16_000, 1536),
    "packed vectors, cosine, D = 512": ({"recipe": "gcpo-cd", "embedder": "reward"}, 100_000, 512),
    "packed points, transport, 8 x 512": ({"recipe": "gcpo-bot", "embedder": "reward"}, 16_000, 512),
    "score features, damping": ({"recipe": "gcpo"}, 16_000, 4096),
}

SHARED = ("answers, 400 characters", "hashed text, transport, 400 characters", "packed points, transport, 8 x 512")


def text(rng: random.Random, size: int) -> str:
    """Lines of about 40 characters."""
    lines, total = [], 0
    while total < size:
        a, b = rng.randrange(1000), rng.randrange(1000)
        line = f"{' '.join(rng.choices(WORDS, k=5))} {a}+{b}={a + b}"
        lines.append(line)
        total += len(line) + 1
    return "\n".join(lines)[:size]


class Simulated:
    """N rows in groups of G, shuffled."""

    def __init__(self, options: Options, n: int, size: int) -> None:
        rng = random.Random(0)
        groups = [i // G for i in range(n)]
        rng.shuffle(groups)
        self.rewards = torch.tensor([float(rng.random() < 0.5) for _ in groups])
        self.trains = torch.ones(n, dtype=torch.bool)
        started = time.perf_counter()
        self.rows = arrange(groups)
        self.arranged = time.perf_counter() - started
        reads = size and options.embedder not in ("policy", "reward") and options.recipe != "gcpo"
        self.said = [text(rng, size) for _ in groups] if reads else []
        cloud = options.recipe == "gcpo-bot"
        self.vectors = [] if reads or not size else list(torch.randn(n, *([8] if cloud else []), size))
        if options.embedder == "reward":
            self.vectors = [pack(v) for v in self.vectors]

    def texts(self, rows: list[int]) -> list[str]:
        """Their responses."""
        return [self.said[row] for row in rows]

    def field(self, _name: str, rows: list[int]) -> list[torch.Tensor]:
        """Their vectors, whatever is asked for."""
        found = [self.vectors[row] for row in rows]
        return [unpack(v) if isinstance(v, str) else v for v in found]


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measure(case: str, n: int | None = None) -> dict[str, float]:
    given, most, size = CASES[case]
    options = Options(**given)
    n = n or most
    driver = Driver(options)
    driver(Simulated(options, 16, min(size, 400) if size else 0))  # imports and first calls
    batch = Simulated(options, n, size)
    before = peak()
    times = []
    for _ in range(1 if size > 10_000 and batch.said else 2):
        fresh = Driver(options)  # no text is remembered
        started = time.perf_counter()
        fresh(batch)
        times.append(time.perf_counter() - started)
    return {
        "responses": n,
        "seconds": min(times),
        "ms_a_group": 1000 * min(times) / n * G,
        "seconds_for_100k": min(times) / n * 100_000 + (batch.arranged / n * 100_000),
        "spread": max(times) / min(times),
        "mebibytes_beyond_the_batch": peak() - before,
    }


def by_group_size(sizes: tuple[int, ...] = (8, 16, 32, 64), responses: int = 512) -> dict[str, dict[int, float]]:
    """CPU milliseconds a group of each signal: vectors of 512, clouds of 8, 4096 score features, texts of 60 words."""
    found: dict[str, dict[int, float]] = {name: {} for name in SIGNALS}
    for size in sizes:
        B, rng = responses // size, random.Random(0)
        inputs = {
            "rewards": torch.rand(B, size),
            "advantages": torch.randn(B, size),
            "embeddings": torch.randn(B, size, 512),
            "points": torch.randn(B, size, 8, 512),
            "labels": torch.randint(0, 4, (B, size)),
            "texts": [[" ".join(rng.choices(WORDS, k=60)) for _ in range(size)] for _ in range(B)],
            "log_probs": -torch.rand(B, size),
            "lengths": torch.full((B, size), 400),
            "scores": torch.randn(B, size, 4096),
        }
        for name, signal in SIGNALS.items():
            signal(inputs)
            times = []
            for _ in range(3):
                started = time.process_time()
                signal(inputs)
                times.append(time.process_time() - started)
            found[name][size] = 1000 * min(times) / B
    return found


def beside_workers(workers: int, n: int = 2_000) -> dict[str, dict[str, float]]:
    """CPU seconds of the driver's process for 100,000 responses, alone and beside Ray actors."""
    import ray

    ray.init(include_dashboard=False, log_to_driver=False)
    found: dict[str, dict[str, float]] = {}
    for case in SHARED:
        given, _, size = CASES[case]
        found[case] = {}
        for name, count in (("alone", 0), ("beside workers", workers)):
            driver = Driver(Options(**given, workers=count))
            driver(Simulated(driver.options, 64, size))  # workers start, and import
            batch, started = Simulated(driver.options, n, size), time.process_time()
            driver(batch)
            found[case][name] = (time.process_time() - started) / n * 100_000
    ray.shutdown()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--n", type=int)
    parser.add_argument("--signals", action="store_true")
    parser.add_argument("--workers", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.case:
        print(json.dumps(measure(given.case, given.n)))
        return
    if given.signals or given.workers:
        rows = by_group_size() if given.signals else beside_workers(given.workers)
        for name, row in rows.items():
            print(f"| {name} |", " | ".join(f"{value:.3g}" for value in row.values()), "|", flush=True)
        return
    results = {}
    for case in CASES:
        done = subprocess.run([sys.executable, __file__, "--case", case], capture_output=True, text=True, check=True)
        results[case] = json.loads(done.stdout.splitlines()[-1])
        print(f"{case:42}", *(f"{name} {value:.4g}" for name, value in results[case].items()), flush=True)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "threads": 1}
    OUTPUT.write_text(json.dumps({"versions": versions, "cases": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
