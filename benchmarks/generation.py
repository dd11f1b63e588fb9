"""What TRL's own switches of generation give: CPU seconds a token drawn, against plain ``generate``.

Each repetition trains each variant in turn for a few steps, and takes the generation of the last. Rewards are all
equal and the recipe is grpo, so nothing is passed forward or backward and nothing listens; learning rate 0, the same
seed. Seconds are of the process (one thread); ratios to plain within the repetition, per token, with the smallest and
the largest. Padding: share of the slots (rows x longest response) that hold no token drawn.

Not settings of TRL: ``chunks`` generates a quarter of the rows at a time, as a smaller generation batch would (with
gradient accumulation, ``steps_per_generation``); ``rounds`` generates 8 tokens at a time and goes on with the rows
that have not ended, whose tokens so far are read anew.

Then one step of gcpo-bot with each variant: how many responses had to pass the model again for their geometry.

    python benchmarks/generation.py --model ./smollm2  ->  benchmarks/results/generation.json
"""

import argparse
import json
import logging
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOTrainer

from gcpo import GCPOConfig, GCPOMixin
from gcpo.policies import resolve
from gcpo.semantics import policy
from gcpo.tasks import get_task

_PAGES = {"num_blocks": 256, "page_size": 32, "max_batch_tokens": 512, "use_cuda_graph": False}

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "static cache": {"cache_implementation": "static"},
    "continuous batching": {
        "use_transformers_continuous_batching": True,
        "transformers_continuous_batching_config": _PAGES,
    },
    "bf16": {"bf16": True},
    "chunks": {"calls": "chunks"},
    "rounds": {"calls": "rounds"},
}


class Case(NamedTuple):
    """A model, its prompts and the shape of its batch."""

    name: str
    path: str
    prompts: list[Any]
    rows: int
    tokens: int
    steps: int
    repeats: int


class TimedHost(GRPOTrainer):
    """``GRPOTrainer`` that notes what each generation took."""

    calls = "whole"

    def _generate_single_turn(self, prompt_ids: Any, *rest: Any) -> Any:
        started = time.process_time()
        said = getattr(self, f"call_{self.calls}")(prompt_ids, *rest)
        seconds = time.process_time() - started
        lengths = [len(ids) for ids in said]
        drawn = sum(lengths)
        self.taken = {"seconds": seconds, "tokens": drawn, "padding": 1 - drawn / len(said) / max(lengths)}
        return said, None

    def call_whole(self, prompt_ids: Any, *rest: Any) -> Any:
        """As TRL does."""
        return super()._generate_single_turn(prompt_ids, *rest)[0]

    def call_chunks(self, prompt_ids: Any, *rest: Any) -> Any:
        """A quarter of the rows at a time."""
        n = len(prompt_ids) // 4
        return [ids for i in range(0, len(prompt_ids), n) for ids in self.call_whole(prompt_ids[i : i + n], *rest)]

    def call_rounds(self, prompt_ids: Any, *rest: Any) -> Any:
        """8 tokens at a time of the rows that have not ended."""
        said: list[list[int]] = [[] for _ in prompt_ids]
        left, most = list(range(len(prompt_ids))), self.generation_config.max_new_tokens
        for done in range(0, most, 8):
            self.generation_config.max_new_tokens = min(8, most - done)
            for i, new in zip(left, self.call_whole([prompt_ids[i] + said[i] for i in left], *rest), strict=True):
                said[i] += new
            left = [i for i in left if said[i][-1] not in self.eos_token_ids]
            if not left:
                break
        self.generation_config.max_new_tokens = most
        return said


class Timed(GCPOMixin, TimedHost):
    """The same with a recipe."""


def train(case: Case, variant: dict[str, Any], **settings: Any) -> Timed:
    """A few steps."""
    settings = {"recipe": "grpo", "bf16": False, "max_steps": case.steps} | variant | settings
    calls = settings.pop("calls", "whole")
    reward = settings.pop("reward", lambda completions, **_: [0.0] * len(completions))
    trainer = Timed(
        model=AutoModelForCausalLM.from_pretrained(case.path, dtype=torch.float32),
        reward_funcs=reward,
        args=GCPOConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=case.rows,
            max_completion_length=case.tokens,
            learning_rate=0.0,
            gradient_checkpointing=False,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            logging_steps=100,
            **settings,
        ),
        train_dataset=Dataset.from_list([{"prompt": p} for p in case.prompts]),
        processing_class=AutoTokenizer.from_pretrained(case.path, padding_side="left"),
    )
    trainer.calls = calls
    trainer.train()
    return trainer


def compare(case: Case) -> dict[str, Any]:
    """Seconds and ratios by variant."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    failed = {}
    for _ in range(case.repeats):
        for name, variant in VARIANTS.items():
            if name in failed:
                continue
            try:
                taken[name].append(train(case, variant).taken)
                print(case.name, name, taken[name][-1], flush=True)
            except Exception as error:  # a variant that this host or machine cannot do is a result
                failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                print(case.name, name, failed[name], flush=True)
    rows: dict[str, Any] = dict(failed)
    for name in (name for name in VARIANTS if name not in failed):
        cost = [(a["seconds"] / a["tokens"], b["seconds"] / b["tokens"])
                for a, b in zip(taken[name], taken["plain"], strict=True)]  # fmt: skip
        ratios = [a / b for a, b in cost]
        rows[name] = {
            "ms_a_token": 1000 * statistics.median(a for a, _ in cost),
            "of_plain": statistics.median(ratios),
            "range": (min(ratios), max(ratios)),
            "padding": statistics.mean(row["padding"] for row in taken[name]),
        }
    return rows


def listened(case: Case) -> dict[str, int]:
    """Responses of a step of gcpo-bot that passed the model once more, by variant."""
    found: dict[str, int] = {}
    passed: list[int] = []
    forward = policy.forward

    def counting(*given: Any) -> Any:
        passed.append(len(given[2]))
        return forward(*given)

    policy.forward = counting
    for name, variant in VARIANTS.items():
        if "calls" not in variant:
            passed.clear()
            train(
                case,
                variant,
                recipe="gcpo-bot",
                max_steps=1,
                reward=lambda completions, **_: [float(i % 2) for i in range(len(completions))],
            )
            found[name] = sum(passed)
    policy.forward = forward
    return found


def larger() -> list[Any]:
    """Questions that a small model answers at quite different lengths."""
    return [
        [{"role": "user", "content": f"Which is larger, {a} or {b}? Answer in a sentence."}]
        for a, b in zip(range(12, 76), range(75, 11, -1), strict=True)
    ]


def main() -> None:
    """Measure the starter policy and, where one is given, a pretrained chat model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="directory of a pretrained chat model")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "generation.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    prompts = [e.prompt for e in get_task("product").examples("train", 64, 0)]
    starter = Case("starter", resolve("starter"), prompts, 64, 96, 2, 3)
    versions = {name: version(name) for name in ("torch", "transformers", "trl")}
    result: dict[str, Any] = {
        "versions": versions | {"python": platform.python_version()},
        "device": f"{platform.machine()} CPU, 1 thread",
        "starter": compare(starter),
        "passed_again": listened(starter._replace(rows=16)),
    }
    if options.model:
        result[options.model.name] = compare(Case(options.model.name, str(options.model), larger(), 8, 40, 1, 1))
    options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
