"""``gcpo train``: settings in, a trained policy and the page that explains it out."""

import json
import shutil
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers.utils import logging as hf_logging

from gcpo import policies, report
from gcpo.experiment.adapters import merged, with_lora
from gcpo.experiment.evaluate import Examiner, interval
from gcpo.experiment.hostconfig import host_config
from gcpo.experiment.progress import Interim, Recorder
from gcpo.experiment.resolve import own
from gcpo.experiment.rundir import RunDirectory
from gcpo.experiment.settings import TrainSettings, UsageError
from gcpo.experiment.subject import build_task, draw, load_policy, load_signals, poses_chat, versions
from gcpo.experiment.training import run_trainer
from gcpo.integrations.trl import GCPOTrainer, TRLTrainer
from gcpo.integrations.trl_config import GCPOConfig
from gcpo.signals import SIGNALS
from gcpo.tasks import Example, Task
from gcpo.tasks.noise import Noisy

# The starter policy: 32 prompts x 4 responses, two updates each; docs/results/quickstart.md has how this was found,
# docs/results/study.md what four responses and a second update are worth.
_QUICKSTART: dict[str, Any] = {
    "max_steps": 200,
    "num_generations": 4,
    "num_iterations": 2,
    "per_device_train_batch_size": 128,
    "learning_rate": 1e-4,
    "lr_scheduler_type": "linear",
    "warmup_steps": 10,
}
# A pretrained model: 4 prompts x 8 responses a step in micro-batches of one group; the rest as TRL has it.
_PRETRAINED: dict[str, Any] = {
    "max_steps": 100,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 4,
}
_TRAINERS: dict[str, Any] = {"gcpo": GCPOTrainer, "trl": TRLTrainer}
_PROMPTS = 4096  # of a built-in task; a data file is used whole


def train(settings: TrainSettings, output: Path) -> dict[str, Any]:
    """Train a policy as ``settings`` say and leave a run directory in ``output``.

    Returns:
        What ``summary.json`` holds: ``status``, ``before`` and ``after`` (each with ``accuracy``, ``ci95``, ``n``),
        ``change``, ``steps``, ``seconds``, ``report``.

    Raises:
        UsageError: The settings cannot be carried out; nothing has been trained.
    """
    hf_logging.disable_progress_bar()  # one bar is enough
    load_signals(settings)
    task = build_task(settings)
    config = build_config(settings, task, output)
    held_out = draw(task, "test", settings.eval_prompts, settings.eval_seed)
    prompts = draw(task, "train", _PROMPTS if task.count("train") is None else None, settings.seed)
    a_step = config.generation_batch_size // config.num_generations
    others = "" if config.gcpo_dynamic_sampling is None else " and others in their place"
    if len(prompts) < a_step + bool(others):
        raise UsageError(
            f"training takes {a_step} prompts a step{others}, but {task.name} has {len(prompts)} to train on: give "
            "more rows, or lower per_device_train_batch_size or gradient_accumulation_steps."
        )
    model, tokenizer = load_policy(settings.model, config.device)
    chat = poses_chat(settings, tokenizer)
    model = with_lora(model, settings)
    run = RunDirectory(output, {"command": "train", **settings.as_dict(), "versions": versions()})
    _check_room(output, model, config)
    test = Examiner(task, held_out, settings, config.max_completion_length, chat)

    summary: dict[str, Any] = {"before": None, "after": None} | run.summary() | {"status": "running"}
    rates = run.read_json("rates.json")

    def measure(when: str) -> None:
        result = test(model, tokenizer, when)
        summary[when], rates[when] = result.as_dict(), result.rates.tolist()
        run.write_text("rates.json", json.dumps(rates))

    with run.noting_failure(summary):
        if summary["before"] is None:
            measure("before")
        run.write_summary(summary)
        interrupted, steps = _train(model, tokenizer, config, settings, task, prompts, run, test)
        summary |= {"steps": steps, "seconds": round(run.seconds(), 1), "responses": config.generation_batch_size}
        model = merged(model, output / "adapter")
        run.write_directory("model", lambda path: (model.save_pretrained(path), tokenizer.save_pretrained(path)))
        if not interrupted:
            measure("after")
            change = np.subtract(rates["after"], rates["before"])
            summary["change"] = {"accuracy": float(change.mean()), "ci95": interval(change)}
        summary["status"] = "interrupted" if interrupted else "finished"
        run.write_summary(summary)
        # A run is finished when this is said.
        summary["report"] = str(report.build(output)) if settings.report else None
        run.write_summary(summary)
    return summary


def _train(
    model: Any,
    tokenizer: Any,
    config: GCPOConfig,
    settings: TrainSettings,
    task: Task,
    prompts: list[Example],
    run: RunDirectory,
    test: Examiner,
) -> tuple[bool, int]:
    """Train, from the last checkpoint if there is one; returns whether it was interrupted, and the steps done."""
    chat = test.chat
    rows = [{"prompt": e.messages() if chat else e.text(), "problem": e.prompt} for e in prompts]
    shown = {"\n".join(m["content"] for m in e.messages()) if chat else e.text(): e.answer for e in prompts}
    recorder = Recorder(run, shown)
    interim = Interim(run, recorder, settings.eval_every, lambda: test(model, tokenizer).accuracy)
    graded = Noisy(task, settings.reward_noise, settings.seed) if settings.reward_noise else task
    try:
        trainer = _TRAINERS[settings.host](
            model=model,
            reward_funcs=_reward(graded, prompts),
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[recorder, interim],
        )
    except ValueError as error:
        raise UsageError(f"the trainer refuses these settings: {error}") from error
    recorder.trainer = trainer
    return run_trainer(trainer, model, run, recorder)


def _check_room(output: Path, model: Any, config: GCPOConfig) -> None:
    """Refuse a disk without room for the trained policy; warn of one without room for the checkpoints besides."""
    policy = sum(p.numel() * p.element_size() for p in model.parameters())
    # A checkpoint has the policy and, with Adam, its two moments; an old one goes when the new one is there.
    kept = 0 if config.save_strategy == "no" else (config.save_total_limit or 1) + 1
    free, needed = shutil.disk_usage(output).free, policy * (1 + 3 * kept)
    said = f"the output {output} has {free >> 20} MiB free, but"
    if free < policy:
        raise UsageError(f"{said} the policy alone takes {policy >> 20} MiB: make room or choose another.")
    if free < needed:
        print(f"{said} the policy and {kept} checkpoints may take {needed >> 20} MiB", file=sys.stderr)


def _reward(task: Task, prompts: list[Example]) -> Any:
    """The task's grade as a TRL reward function, which also logs the accuracy."""
    posed = {e.prompt: e for e in prompts}

    def correct(completions: list[Any], problem: list[str], **given: Any) -> list[float]:
        texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
        pairs = [(text, posed[p]) for text, p in zip(texts, problem, strict=True)]
        judged = [(task.grade(*pair), task.score(*pair)) for pair in pairs]
        if log_metric := given.get("log_metric"):
            log_metric("accuracy", sum(score for _, score in judged) / len(judged))
        return [grade for grade, _ in judged]

    return correct


def build_config(settings: TrainSettings, task: Task, output: Path) -> GCPOConfig:
    """``GCPOConfig`` from our defaults and the user's fields, converted and checked by its own parser."""
    # TRL sets these fields itself; what transformers thinks of it is no news to our user.
    warnings.filterwarnings("ignore", message=".*checkpointing.*deprecated", category=FutureWarning)
    packaged = settings.model in policies.POLICIES
    cuda = torch.cuda.is_available()
    values: dict[str, Any] = {
        "num_generations": 8,
        **(_QUICKSTART if packaged else _PRETRAINED),
        "max_completion_length": task.max_new_tokens,
        "bf16": cuda and not packaged and torch.cuda.is_bf16_supported(),
        "use_cpu": not cuda,
        "gradient_checkpointing": cuda and not packaged,
        "save_steps": 50,
        "save_total_limit": 2,
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "gcpo_log_signals": list(SIGNALS),
        "gcpo_reward_range": task.reward_range,
        "recipe": settings.recipe,
        "seed": settings.seed,
        **({"max_steps": -1} if "num_train_epochs" in settings.trainer else {}),
        **settings.trainer,
        "output_dir": str(output / "checkpoints"),
    }
    config: GCPOConfig = host_config(GCPOConfig, values, settings.trainer, own(TrainSettings), "train")
    _check_machine(config)
    return config


def _check_machine(config: GCPOConfig) -> None:
    """What the host would find out only when it builds its trainer, after the first evaluation."""
    if config.n_gpu > 1:
        raise UsageError(
            f"gcpo train takes one GPU, found {config.n_gpu}: set CUDA_VISIBLE_DEVICES to one of them, or launch a "
            "script with GCPOTrainer (docs/distributed.md)."
        )
    if config.fp16 and config.device.type == "cpu":
        raise UsageError("fp16=true needs a GPU, found none: leave it out.")
    if config.use_vllm and find_spec("vllm") is None:
        raise UsageError("use_vllm=true needs vLLM, which is not installed: pip install vllm, or leave it out.")
