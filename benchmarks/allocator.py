"""What it gives to keep the memory of freed tensors, as the processes of `gcpo bench` do: a ratio of seconds.

    python benchmarks/allocator.py  ->  benchmarks/results/allocator.json

Each repetition trains a recipe on a task twice, one after the other in processes of one thread: as glibc is, then
with KEEP_FREED. Both have to end with the same losses to the last bit. Seconds are the process's own on a CPU, with
those it needs to start; ratios within the repetition, with the smallest and the largest. Without glibc both are alike.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from gcpo.experiment.bench.run import KEEP_FREED, ONE_THREAD

OUTPUT = Path(__file__).parent / "results" / "allocator.json"
RUNS = {
    "countdown, grpo": ("--task", "countdown", "--recipe", "grpo", "num_generations=8", "num_iterations=1"),
    "chain, gcpo-bot": ("--task", "chain", "--recipe", "gcpo-bot", "num_generations=8", "num_iterations=1"),
    "chain, gcpo, twice": ("--task", "chain", "--recipe", "gcpo", "num_generations=4", "num_iterations=2"),
}


def measured(
    arguments: tuple[str, ...], steps: int, environment: dict[str, str]
) -> tuple[dict[str, float], list[float]]:
    """Seconds of a run and those of them in the kernel; its losses."""
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory, "run")
        words = (*arguments, f"max_steps={steps}", "eval_prompts=64", "eval_samples=1", "report=false")
        command = (sys.executable, "-m", "gcpo", "train", *words, "--output", str(run))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, env=os.environ | ONE_THREAD | environment, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    kernel = after.ru_stime - before.ru_stime
    return {"seconds": after.ru_utime - before.ru_utime + kernel, "kernel": kernel}, losses


def case(arguments: tuple[str, ...], steps: int, repetitions: int) -> dict[str, object]:
    """Median seconds of both, and the ratios."""
    given, kept = [], []
    for _ in range(repetitions):
        (plain, losses), (tuned, same) = (measured(arguments, steps, more) for more in ({}, KEEP_FREED))
        if losses != same:
            raise SystemExit(f"the losses differ: {losses} and {same}.")
        given.append(plain)
        kept.append(tuned)
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(given, kept, strict=True)]
    medians = {
        name: {key: statistics.median(each[key] for each in rows) for key in ("seconds", "kernel")}
        for name, rows in (("given back", given), ("kept", kept))
    }
    return medians | {"ratio": statistics.median(ratios), "range": [min(ratios), max(ratios)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args()
    cases = {}
    for name, arguments in RUNS.items():
        cases[name] = case(arguments, given.steps, given.repetitions)
        print(name, json.dumps(cases[name]), flush=True)
    versions = {package: version(package) for package in ("torch", "transformers", "trl")}
    device = {"machine": platform.machine(), "libc": " ".join(platform.libc_ver()), "threads": 1}
    found = {
        "steps": given.steps,
        "repetitions": given.repetitions,
        "versions": versions,
        "device": device,
        "cases": cases,
    }
    OUTPUT.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
