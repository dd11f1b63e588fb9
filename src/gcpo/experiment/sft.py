"""``gcpo sft``: a policy learns gold solutions by TRL's SFTTrainer, so that it half knows a task before RL.

The loss is on the solutions only. The run directory is that of ``gcpo train``, without groups.
"""

from pathlib import Path
from typing import Any

import datasets
import torch
from datasets import Dataset
from transformers.utils import logging as hf_logging

from gcpo import policies, report
from gcpo.experiment.adapters import merged, with_lora
from gcpo.experiment.evaluate import Examiner
from gcpo.experiment.hostconfig import host_config
from gcpo.experiment.progress import Metrics
from gcpo.experiment.resolve import own
from gcpo.experiment.rundir import RunDirectory
from gcpo.experiment.settings import SFTSettings, UsageError
from gcpo.experiment.subject import build_task, draw, load_policy, load_signals, poses_chat, versions
from gcpo.experiment.training import run_trainer
from gcpo.integrations.trl_sft import SFTConfig, SFTTrainer
from gcpo.tasks import Example
from gcpo.tasks.base import gap

_PROMPTS = 4096  # of a task with problems without number; data is used whole


def sft(settings: SFTSettings, output: Path) -> dict[str, Any]:
    """Fine-tune a policy as ``settings`` say and leave a run directory in ``output``.

    Returns:
        What ``summary.json`` holds: ``status``, ``before`` and ``after`` (each with ``accuracy``, ``ci95``, ``n``),
        ``steps``, ``seconds``, ``report``.

    Raises:
        UsageError: The settings cannot be carried out; nothing has been trained.
    """
    hf_logging.disable_progress_bar()  # one bar is enough
    datasets.disable_progress_bars()
    load_signals(settings)
    task = build_task(settings)
    config = build_config(settings, output)
    held_out = draw(task, "test", settings.eval_prompts, settings.eval_seed)
    solved = draw(task, "train", _PROMPTS if task.count("train") is None else None, settings.seed)
    model, tokenizer = load_policy(settings.model, config.device)
    chat = poses_chat(settings, tokenizer)
    model = with_lora(model, settings)
    run = RunDirectory(output, {"command": "sft", **settings.as_dict(), "versions": versions()})
    test = Examiner(task, held_out, settings, settings.eval_max_new_tokens or task.max_new_tokens, chat)
    summary: dict[str, Any] = {"before": None, "after": None} | run.summary() | {"status": "running"}

    with run.noting_failure(summary):
        summary["before"] = summary["before"] or test(model, tokenizer, "before").as_dict()
        run.write_summary(summary)
        interrupted, steps = _train(model, tokenizer, config, solved, run, chat)
        model = merged(model, output / "adapter")
        run.write_directory("model", lambda path: (model.save_pretrained(path), tokenizer.save_pretrained(path)))
        summary |= {"steps": steps, "seconds": round(run.seconds(), 1)}
        summary["status"] = "interrupted" if interrupted else "finished"
        summary["after"] = None if interrupted else test(model, tokenizer, "after").as_dict()
        run.write_summary(summary)
        summary["report"] = str(report.build(output))
        run.write_summary(summary)
    return summary


def build_config(settings: SFTSettings, output: Path) -> SFTConfig:
    """``SFTConfig`` from our defaults and the user's fields."""
    cuda, starter = torch.cuda.is_available(), settings.model in policies.POLICIES
    values: dict[str, Any] = {
        "max_steps": -1 if "num_train_epochs" in settings.trainer else 100,
        "per_device_train_batch_size": 128 if starter else 16,
        "learning_rate": 1e-3 if starter else 5e-5,
        "warmup_steps": 10,
        "max_length": None,  # a solution cut short teaches to stop short
        "bf16": cuda and not starter and torch.cuda.is_bf16_supported(),
        "use_cpu": not cuda,
        "gradient_checkpointing": cuda and not starter,
        "save_steps": 50,
        "save_total_limit": 2,
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": settings.seed,
        **settings.trainer,
        "output_dir": str(output / "checkpoints"),
    }
    unset = [key for key, value in values.items() if value is None]
    given = {key: value for key, value in values.items() if value is not None}
    config: SFTConfig = host_config(SFTConfig, given, settings.trainer, own(SFTSettings), "sft")
    for key in unset:
        setattr(config, key, None)
    return config


def rows(examples: list[Example], chat: bool) -> list[dict[str, Any]]:
    """Prompts and completions as TRL takes them, of a chat or of plain text."""
    if chat:
        return [
            {"prompt": e.messages(), "completion": [{"role": "assistant", "content": e.solution}]} for e in examples
        ]
    return [{"prompt": e.text(), "completion": gap(e.prompt) + e.solution} for e in examples]


def _train(
    model: Any, tokenizer: Any, config: SFTConfig, solved: list[Example], run: RunDirectory, chat: bool
) -> tuple[bool, int]:
    """Train, from the last checkpoint if there is one; returns whether it was interrupted, and the steps done."""
    metrics = Metrics(run)
    try:
        trainer = SFTTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(rows(solved, chat)),
            processing_class=tokenizer,
            callbacks=[metrics],
        )
    except ValueError as error:
        raise UsageError(f"the trainer refuses these settings: {error}") from error
    return run_trainer(trainer, model, run, metrics)
