"""A step of ``GCPOTrainer`` against one of TRL's ``GRPOTrainer`` on the same completions.

Forward and backward: completions are random tokens of given lengths, so nothing is generated; the time of
``training_step`` without ``_prepare_inputs``, over an accumulation window. A share of the groups is dead. Lengths are
either all alike ("even") or log-normal (sigma 0.7, median a third of the most), cut at the most ("ragged").

Whole step: sampled by the model (prompts of ``chain``), scored, forward, backward, AdamW (learning rate 0), shares of
dead groups as above; then, with no group dead, also on the quickstart's task, each recipe against TRL's step, which is
the overhead of what it measures.

All variants in turn within a repetition, one thread, float32; medians of ratios to TRL within the repetition, with
quartiles. Every variant starts a step from the same random state, so it samples the same completions.

    python benchmarks/step.py --model ./smollm2  ->  benchmarks/results/step.json
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
from trl import GRPOConfig, GRPOTrainer

from gcpo import GCPOConfig, GCPOTrainer
from gcpo.policies import resolve
from gcpo.tasks import get_task

SHARES = {"0": 0.0, "1/3": 1 / 3, "1/2": 0.5, "3/4": 0.75}
RECIPES = ["grpo", "gcpo-cd", "gcpo-bot", "gcpo"]


class Case(NamedTuple):
    """A model and the shape of its steps."""

    name: str
    path: str
    group: int
    micro_batch: int
    accumulation: int
    tokens: int
    repeats: int
    task: str = "chain"


class Script(NamedTuple):
    """What happens in place of chance: which groups are dead, and lengths of completions that are not generated."""

    dead: float
    group: int
    lengths: list[int] | None = None

    def reward(self, completions: list[Any], **_: Any) -> list[float]:
        """The first groups get equal rewards, the others half of them 1."""
        groups = len(completions) // self.group
        return [0.0 if i // self.group < round(self.dead * groups) else float(i % 2) for i in range(len(completions))]


def trainer_of(kind: type, case: Case, script: Script, **settings: Any) -> Any:
    """A trainer that is ready for ``training_step``."""

    class Scripted(kind):  # type: ignore[misc,valid-type]
        def _generate_single_turn(self, prompt_ids: Any, *rest: Any) -> Any:
            if script.lengths is None:
                return super()._generate_single_turn(prompt_ids, *rest)
            V = self.model.config.vocab_size
            return [torch.randint(3, V, (n,)).tolist() for n in script.lengths], None

    config = GCPOConfig if issubclass(kind, GCPOTrainer) else GRPOConfig
    tokenizer = AutoTokenizer.from_pretrained(case.path, padding_side="left")
    prompts = [e.prompt for e in get_task(case.task).examples("train", 256, 0)]
    trainer = Scripted(
        model=AutoModelForCausalLM.from_pretrained(case.path, dtype=torch.float32),
        reward_funcs=script.reward,
        args=config(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=case.micro_batch,
            gradient_accumulation_steps=case.accumulation,
            num_generations=case.group,
            max_completion_length=case.tokens,
            learning_rate=0.0,
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            **settings,
        ),
        train_dataset=Dataset.from_list([{"prompt": p} for p in prompts]),
        processing_class=tokenizer,
    )
    trainer.current_gradient_accumulation_steps = case.accumulation
    trainer.create_optimizer_and_scheduler(1000)
    trainer.batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    return trainer


def step(trainer: Any, seed: int) -> tuple[float, float]:
    """Seconds of a whole step, and of its forward and backward passes alone."""
    prepared, inner = 0.0, trainer._prepare_inputs

    def timed(batch: Any) -> Any:
        nonlocal prepared
        started = time.perf_counter()
        inputs = inner(batch)
        prepared += time.perf_counter() - started
        return inputs

    trainer._prepare_inputs = timed
    torch.manual_seed(seed)
    started = time.perf_counter()
    for _ in range(trainer.args.gradient_accumulation_steps):
        trainer.training_step(trainer.model, trainer.batch, None)
    passes = time.perf_counter() - started - prepared
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    whole = time.perf_counter() - started
    trainer._prepare_inputs = inner
    trainer.state.global_step += 1
    return whole, passes


def compared(trainers: dict[str, Any], repeats: int, which: int) -> dict[str, dict[str, Any]]:
    """Ratios to the first, a step of each in turn."""
    taken: dict[str, list[float]] = {name: [] for name in trainers}
    for seed in range(repeats + 1):
        for name, trainer in trainers.items():
            seconds = step(trainer, seed)[which]
            if seed:  # the first warms up
                taken[name].append(seconds)
    (reference, *_) = taken.values()
    rows = {}
    for name, row in taken.items():
        ratios = [a / b for a, b in zip(row, reference, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        rows[name] = {"seconds": statistics.median(row), "of_trl": middle, "quartiles": (low, high)}
    return rows


def ragged(n: int, most: int) -> list[int]:
    generator = torch.Generator().manual_seed(0)
    lengths = most / 3 * torch.exp(0.7 * torch.randn(n, generator=generator))
    return lengths.clamp(1, most).int().tolist()


def report(case: Case, what: str, share: str, rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found = {
        name: f"{row['of_trl']:.3f} ({row['quartiles'][0]:.3f} to {row['quartiles'][1]:.3f})"
        for name, row in rows.items()
    }
    print(f"{case.name:8} {case.task:10} {what:16} dead {share:4} {found}", flush=True)
    return {**case._asdict(), "path": None, "what": what, "dead": share, "variants": rows}


def passes(case: Case) -> list[dict[str, Any]]:
    """Forward and backward alone."""
    rows, n = [], case.micro_batch * case.accumulation
    for what, lengths in {"even": [case.tokens] * n, "ragged": ragged(n, case.tokens)}.items():
        for share, dead in SHARES.items():
            script = Script(dead, case.group, lengths)
            trainers = {
                "trl": trainer_of(GRPOTrainer, case, script),
                "gcpo": trainer_of(GCPOTrainer, case, script, recipe="grpo"),
                "not watched": trainer_of(GCPOTrainer, case, script, recipe="grpo", gcpo_watch_gradients=False),
            }
            rows.append(report(case, f"passes, {what}", share, compared(trainers, case.repeats, 1)))
    return rows


def whole(case: Case, shares: list[str]) -> list[dict[str, Any]]:
    """With generation."""
    rows = []
    for share in shares:
        script = Script(SHARES[share], case.group)
        trainers = {"trl": trainer_of(GRPOTrainer, case, script)}
        trainers |= {name: trainer_of(GCPOTrainer, case, script, recipe=name) for name in RECIPES}
        rows.append(report(case, "whole step", share, compared(trainers, case.repeats, 0)))
    return rows


def main() -> None:
    """Measure the starter policy and, where one is given, a pretrained model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="directory of a pretrained model")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "step.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    starter = Case("starter", resolve("starter"), 8, 192, 1, 24, 9)
    quickstart = starter._replace(tokens=get_task("countdown").max_new_tokens, task="countdown", repeats=15)
    rows = passes(starter) + whole(starter, list(SHARES)) + whole(quickstart, ["0"])
    if options.model:
        small = Case(options.model.name, str(options.model), 2, 8, 3, 32, 2)
        rows += passes(small) + whole(small, ["0"])
    versions = {name: version(name) for name in ("torch", "transformers", "trl")} | {
        "python": platform.python_version()
    }
    result = {"versions": versions, "device": f"{platform.machine()} CPU, 1 thread, float32", "rows": rows}
    options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
