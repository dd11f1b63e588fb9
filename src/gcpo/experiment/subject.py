"""What a command works on, from its settings: the task with its rewards, the prompts, the policy."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from gcpo import __version__, policies
from gcpo.experiment.settings import TaskSettings, UsageError
from gcpo.policies.vocabulary import check_vocabulary
from gcpo.signals import load_file
from gcpo.tasks import TASKS, Example, Task, get_task
from gcpo.tasks.benchmarks import BENCHMARKS, Benchmark
from gcpo.tasks.data import DataTask
from gcpo.tasks.fields import Fields
from gcpo.tasks.gym import PREFIX, ReasoningGym
from gcpo.tasks.posed import Posed
from gcpo.tasks.rewards import parse
from gcpo.tasks.sources import Source

_OF_DATA = (
    "data_config", "data_split", "test_split", "prompt_field", "answer_field", "choices_field", "solution_field"
)  # fmt: skip


def load_signals(settings: TaskSettings) -> None:
    """Run the user's file of signals, if there is one."""
    try:
        if settings.signals is not None:
            load_file(settings.signals)
    except ValueError as error:
        raise UsageError(str(error)) from error


def build_task(settings: TaskSettings) -> Task:
    """The task that the settings name, with their prompts, splits and rewards.

    Raises:
        UsageError: There is none, or its data cannot be read.
    """
    try:
        task = _problems(settings)
        reward = parse(settings.reward, task) if settings.reward else None
        if reward is None and settings.system is None and not settings.few_shot:
            return task
        return Posed(task, reward, settings.system, settings.few_shot, settings.split_seed)
    except (ValueError, ImportError) as error:
        raise UsageError(str(error)) from error


def _problems(settings: TaskSettings) -> Task:
    given = settings.data is not None or settings.test_data is not None
    if settings.task_settings and (given or not settings.task.startswith(PREFIX)):
        raise UsageError(f"task_settings are for {PREFIX}NAME, found task {settings.subject!r}: leave them out.")
    if settings.task in BENCHMARKS:
        return _benchmark(BENCHMARKS[settings.task], settings)
    if given:
        return _data(settings)
    for name in _OF_DATA:
        if getattr(settings, name) is not None:
            raise UsageError(f"{name} is for data, found the task {settings.task!r} without any: leave it out.")
    if settings.task.startswith(PREFIX):
        return ReasoningGym(settings.task.removeprefix(PREFIX), settings.task_settings, settings.prompt_template)
    if settings.prompt_template is not None:
        raise UsageError(f"prompt_template is for data, found the built-in task {settings.task!r}: leave it out.")
    if settings.task not in TASKS:
        known = ", ".join([*TASKS, *BENCHMARKS])
        raise UsageError(f"the task must be one of {known} or {PREFIX}NAME, found {settings.task!r}.")
    return get_task(settings.task)


def _data(settings: TaskSettings) -> Task:
    if settings.data is None:
        raise UsageError("test_data needs data to train on beside it: give data, or name a benchmark as the task.")
    train = Source(settings.data, settings.data_config, settings.data_split or "train")
    if train.is_file and settings.data_config is not None:
        raise UsageError(f"data_config is for data sets on the hub, found the file {settings.data}: leave it out.")
    test = None
    if settings.test_data is not None or settings.test_split is not None:
        place = settings.test_data or settings.data
        if settings.test_data is None and train.is_file:
            raise UsageError(f"test_split is for data sets on the hub, found the file {place}: give test_data.")
        test = Source(place, settings.data_config, settings.test_split or "test")
    task = DataTask(train, _fields(settings, Fields()), test, None, settings.held_out, settings.split_seed)
    return _told(task)


def _benchmark(benchmark: Benchmark, settings: TaskSettings) -> Task:
    train, test = benchmark.sources(
        settings.data, settings.test_data, settings.data_config, settings.data_split, settings.test_split
    )
    return _told(
        DataTask(
            train,
            _fields(settings, benchmark.fields),
            test,
            parse(benchmark.reward),
            settings.held_out,
            settings.split_seed,
            benchmark.max_new_tokens,
            benchmark.name,
            benchmark.flatten,
        )
    )


def _told(task: DataTask) -> Task:
    if task.repeated:
        print(f"{task.name}: {task.repeated} rows repeat an earlier prompt and are left out", file=sys.stderr)
    return task


def _fields(settings: TaskSettings, fields: Fields) -> Fields:
    """The fields with what the user said of them."""
    changes = {name: getattr(settings, f"{name}_field") for name in ("prompt", "answer", "choices", "solution")}
    changes["template"] = settings.prompt_template
    return replace(fields, **{name: value for name, value in changes.items() if value is not None})


def draw(task: Task, split: Any, n: int | None, seed: int) -> list[Example]:
    """``n`` prompts of a task, or as many as its data has; None for all."""
    most = task.count(split)
    wanted = most if n is None else n if most is None else min(n, most)
    if wanted is None:
        raise UsageError(f"{task.name} has problems without number: say how many.")
    if wanted == 0:
        raise UsageError(f"{task.name} has no prompts for the split {split!r}: give data for it.")
    try:
        return task.examples(split, wanted, seed)
    except ValueError as error:
        raise UsageError(str(error)) from error


def load_policy(name: str, device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Model and tokenizer by packaged name, path or hub id; the tokenizer pads on the left.

    To train, the weights must be in float32: an update is smaller than what bfloat16 can tell apart.
    """
    tokenizer = load_tokenizer(name)
    with _loading(name):
        model, loaded = AutoModelForCausalLM.from_pretrained(
            policies.resolve(name),
            dtype=dtype,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
        _check_whole(name, loaded)
        check_vocabulary(model, tokenizer)
    return model.to(device), tokenizer


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a model, which must have a configuration too; it pads on the left."""
    with _loading(name):
        path = policies.resolve(name)
        # Said outright: if it is left open, transformers asks on a terminal whether to run a repository's code.
        AutoConfig.from_pretrained(path, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", trust_remote_code=False)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise UsageError(
                f"the tokenizer of {name!r} must have an end or a padding token, found neither: set "
                "tokenizer.eos_token and save it again."
            )
        tokenizer.pad_token = tokenizer.eos_token  # attention masks tell padding from the end of a response
    return tokenizer


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Damaged and foreign files raise errors of many kinds; every one means that there is no model."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"the model {name!r} cannot be loaded: {said}") from error


def _check_whole(name: str, loaded: dict[str, Any]) -> None:
    """The host makes up weights that are not there, or not of the size that config.json says."""
    lacking = sorted(loaded["missing_keys"])
    lacking += [f"{key} in the size {list(asked)}" for key, _, asked in loaded["mismatched_keys"]]
    if lacking:
        raise UsageError(
            f"the model {name!r} must have the weights that its config.json asks for, found {len(lacking)} missing, "
            f"the first {lacking[0]}: give a whole causal language model, as save_pretrained writes it."
        )


def poses_chat(settings: TaskSettings, tokenizer: Any, model: str | None = None) -> bool:
    """Whether prompts are posed as a user's turn, to the settings' model or another."""
    has_template = tokenizer.chat_template is not None
    built_in = settings.data is None and settings.task in TASKS
    chat = has_template and not built_in if settings.chat is None else settings.chat
    if chat and not has_template:
        raise UsageError(
            f"chat=true needs a chat template, but the model {model or settings.model!r} has none: leave it out."
        )
    turns = [{"role": "user", "content": "?"}]
    if chat and settings.system is not None:  # some templates know no such role
        try:
            tokenizer.apply_chat_template([{"role": "system", "content": settings.system}, *turns], tokenize=False)
        except Exception as error:  # templates are programs, and raise errors of their own
            raise UsageError(
                f"the chat template of {model or settings.model!r} takes no system prompt ({error}): leave it out, or "
                "put it into prompt_template."
            ) from error
    return chat


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    return {"gcpo": __version__} | {name: version(name) for name in ("torch", "transformers", "trl")}
