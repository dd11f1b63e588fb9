"""What a command can be told: one record of settings a command, checked as it is made.

No heavy import here, so that a wrong word on the command line is answered at once.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


class UsageError(ValueError):
    """The user asked for something that cannot be done; the message says what to change."""


class RunError(RuntimeError):
    """A run cannot go on for a reason outside of it, such as a full disk; what it left is whole and can be resumed."""


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """What every command on a model and a task is told; docs/data.md has the data.

    Attributes:
        task: A built-in task, ``reasoning-gym/NAME``, or a benchmark; with ``data`` that names the format
            of the file.
        task_settings: Settings of a reasoning-gym task.
        model: Packaged name, path or hub id of a causal language model.
        data: File, directory or hub id of prompts and answers, in place of a task.
        data_config: Configuration of a data set on the hub.
        data_split: Its split to train on; None: ``train``, or the benchmark's own.
        test_data: File, directory or hub id to test on; None: ``data``.
        test_split: Split of a data set on the hub to test on; None, without ``test_data``: prompts are held out.
        held_out: Share of the prompts that is held out.
        split_seed: Decides which prompts are held out, and which are shown solved.
        prompt_field: Field of ``data`` that holds the prompt; None: ``prompt``, or the benchmark's own.
        answer_field: Field of ``data`` that holds the answer; None: ``answer``, or the benchmark's own.
        choices_field: Field that holds the options of multiple-choice questions.
        solution_field: Field that holds a right response with working, for ``gcpo sft`` and ``few_shot``.
        prompt_template: Wording of the prompt, with ``{name}`` for a field.
        system: System prompt.
        few_shot: Problems shown solved before each prompt.
        reward: Names of rewards with weights; empty: the task's own.
        chat: Pose prompts as a user's turn of the model's chat template; None: where it has one, except for
            built-in tasks.
        signals: Python file of further signals, which is run.
        seed: Seed of prompts, sampling and data order.
    """

    task: str = "countdown"
    task_settings: dict[str, Any] = field(default_factory=dict)
    model: str = "starter"
    data: str | None = None
    data_config: str | None = None
    data_split: str | None = None
    test_data: str | None = None
    test_split: str | None = None
    held_out: float = 0.1
    split_seed: int = 0
    prompt_field: str | None = None
    answer_field: str | None = None
    choices_field: str | None = None
    solution_field: str | None = None
    prompt_template: str | None = None
    system: str | None = None
    few_shot: int = 0
    reward: list[str] = field(default_factory=list)
    chat: bool | None = None
    signals: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.signals is not None and not Path(self.signals).is_file():
            raise UsageError(f"signals must be a file, found nothing at {self.signals}: check the path.")
        for name in ("data", "test_data"):
            place = getattr(self, name)
            if place is not None and looks_like_a_path(place) and not Path(place).exists():
                raise UsageError(f"{name} must be a file, found nothing at {place}: check the path.")
        self._at_least(0, "few_shot")
        if not 0 < self.held_out < 1:
            raise UsageError(f"held_out must lie between 0 and 1, found {self.held_out}.")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for ``config.yaml``."""
        return asdict(self)

    @property
    def subject(self) -> str:
        """What the run is about, for its name."""
        return self.task.replace("/", "-") if self.data is None else "data"

    def _at_least(self, least: float, *names: str) -> None:
        for name in names:
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be at least {least}, found {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True)
class LoraSettings(TaskSettings):
    """Settings of a command that trains.

    Attributes:
        lora: Train LoRA adapters in place of the whole model.
        lora_rank: Their rank.
        lora_alpha: Their scale, over the rank.
    """

    lora: bool = False
    lora_rank: int = 16
    lora_alpha: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "lora_rank", "lora_alpha")


@dataclass(frozen=True, kw_only=True)
class SFTSettings(LoraSettings):
    """Settings of ``gcpo sft``.

    Attributes:
        eval_seed: Seed of the held-out prompts and of sampling their responses.
        eval_prompts: Held-out prompts to evaluate on, before and after.
        eval_samples: Responses sampled for each.
        eval_max_new_tokens: Longest response; None for the task's own.
        trainer: Fields of ``SFTConfig``.
    """

    eval_seed: int = 0
    eval_prompts: int = 256
    eval_samples: int = 1
    eval_max_new_tokens: int | None = None
    trainer: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "eval_prompts", "eval_samples")


_NOT_STEERING = ("gcpo_log_signals", "gcpo_watch_gradients", "gcpo_pack")
"""What a comparison may set for all, TRL's own trainer too: it changes no update."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings(LoraSettings):
    """Settings of ``gcpo train``.

    Attributes:
        recipe: Name of the recipe.
        host: ``gcpo``, or ``trl`` for TRL's own trainer, to compare with; it knows the recipe ``grpo`` alone.
        reward_noise: Share of rewards that are flipped in training, right for wrong; evaluation is clean.
        eval_seed: Seed of the held-out prompts and of sampling their responses; the same for all seeds of a study.
        eval_prompts: Held-out prompts to evaluate on, before and after.
        eval_samples: Responses sampled for each.
        eval_every: Steps between evaluations on the way, off the clock; 0 for none.
        report: Draw the page when the run ends; ``gcpo report`` draws it later.
        trainer: Fields of ``GCPOConfig``.
    """

    recipe: str = "gcpo"
    host: str = "gcpo"
    reward_noise: float = 0.0
    eval_seed: int = 0
    eval_prompts: int = 512
    eval_samples: int = 4
    eval_every: int = 0
    report: bool = True
    trainer: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "eval_prompts", "eval_samples")
        self._at_least(0, "eval_every")
        if not 0 <= self.reward_noise <= 1:
            raise UsageError(f"reward_noise must be a share, 0 to 1, found {self.reward_noise}.")
        if self.host not in ("gcpo", "trl"):
            raise UsageError(f"host must be gcpo or trl, found {self.host!r}.")
        if self.host == "trl" and self.recipe != "grpo":
            raise UsageError(f"host=trl knows the recipe grpo alone, found {self.recipe!r}: give recipe=grpo with it.")
        ours = [name for name in self.trainer if name.startswith("gcpo_") and name not in _NOT_STEERING]
        if self.host == "trl" and ours:
            raise UsageError(f"host=trl is TRL's own trainer, which has no {ours[0]}: leave it out.")


@dataclass(frozen=True, kw_only=True)
class ProbeSettings(TaskSettings):
    """Settings of ``gcpo probe``.

    Attributes:
        recipe: Recipe whose signal and calibration the two gaps are about.
        groups: Prompts to sample.
        group_size: Responses a group: what signals see, and what a batch takes of a prompt.
        responses: Responses sampled a prompt; those beyond the group are its fresh sample, and half of all the truth.
        recipes: Recipes to align, by name; empty for all.
        batches: Mini-batches to align.
        batch_prompts: Prompts of each.
        blocks: Disjoint sets of prompts the batches come from, over which intervals are taken.
        flip: Probabilities with which rewards are flipped, one alignment each.
        features: Numbers each gradient is sketched to, with the error in ``summary.json``; 0 for the whole gradient.
        exact: Take the targets from exact gradients, a second forward and backward pass; else from the sketch.
        resamples: Of the bootstrap over prompts.
        batch_size: Responses a forward and backward pass, all of some prompts.
        max_new_tokens: Longest response; None for the task's own.
        embedder: Where embeddings and points come from: ``policy``, ``hashed``, ``minilm`` or a sentence-transformers
            model by path or hub id.
        equivalence: When two responses mean the same: ``exact``, ``folded``, ``math`` or ``cosine:T``.
        steps: What a step of a response is: ``auto``, ``lines`` or ``sentences``.
    """

    recipe: str = "gcpo-cd"
    groups: int = 128
    group_size: int = 8
    responses: int = 32
    recipes: list[str] = field(default_factory=list)
    batches: int = 400
    batch_prompts: int = 16
    blocks: int = 8
    flip: list[float] = field(default_factory=lambda: [0.0, 0.25])
    features: int = 8192
    exact: bool = True
    resamples: int = 1000
    batch_size: int = 64
    max_new_tokens: int | None = None
    embedder: str = "policy"
    equivalence: str = "folded"
    steps: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(2, "group_size", "blocks")
        self._at_least(1, "batches", "batch_prompts", "resamples", "batch_size")
        self._at_least(0, "features")
        if self.responses < 2 * self.group_size:
            raise UsageError(
                f"responses must be at least twice group_size, {2 * self.group_size}, found {self.responses}: raise "
                "it, or lower group_size."
            )
        if self.batches < self.blocks:
            raise UsageError(f"batches must be at least blocks, {self.blocks}, found {self.batches}: raise it.")
        if self.batch_size < self.responses:
            raise UsageError(
                f"batch_size must be at least responses, {self.responses}, since a pass takes all of a prompt, found "
                f"{self.batch_size}: raise it, or lower responses."
            )
        if self.groups < self.blocks * self.batch_prompts:
            raise UsageError(
                f"groups must be at least blocks times batch_prompts, {self.blocks} x {self.batch_prompts}, found "
                f"{self.groups}: raise it, or lower one of them."
            )
        if not all(0 <= p <= 1 for p in self.flip):
            raise UsageError(f"flip must be probabilities, found {self.flip}.")


def looks_like_a_path(place: str) -> bool:
    """Whether a place is meant as one on this machine; else it may be the id of something on the hub."""
    return place.startswith((".", "/", "~")) or Path(place).suffix in (".jsonl", ".json", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True, kw_only=True)
class EvalSettings(TaskSettings):
    """Settings of ``gcpo eval``.

    Attributes:
        against: A second model to compare on the same prompts.
        split: ``test``, what is held out, or ``train``.
        prompts: How many; None for all of the data, and for 512 of a task with problems without number.
        greedy: Take the greedy response too.
        samples: Responses sampled a prompt; 0 for none.
        k: Values of k for pass@k; empty for the powers of 2 up to ``samples``.
        temperature: Of sampling.
        top_p: Of sampling.
        right: Score from which a response counts as right.
        max_new_tokens: Longest response; None for the task's own.
        batch_size: Responses generated at once, by transformers; None: by the size of the model.
        dtype: Of the weights, ``float32`` or ``bfloat16``.
        backend: ``transformers``, ``vllm``, or ``auto``: vLLM where it is installed and a GPU is there.
    """

    against: str | None = None
    split: str = "test"
    prompts: int | None = None
    greedy: bool = True
    samples: int = 4
    k: list[int] = field(default_factory=list)
    temperature: float = 1.0
    top_p: float = 1.0
    right: float = 1.0
    max_new_tokens: int | None = None
    batch_size: int | None = None
    dtype: str = "float32"
    backend: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(0, "samples")
        self._at_least(1, *(n for n in ("prompts", "max_new_tokens", "batch_size") if getattr(self, n) is not None))
        if not self.samples and not self.greedy:
            raise UsageError("samples must be at least 1 with greedy=false, found 0: there would be no response.")
        if not all(1 <= k <= self.samples for k in self.k):
            raise UsageError(f"k must be 1 to {self.samples}, the number of samples, found {self.k}.")
        if not self.temperature > 0 or not 0 < self.top_p <= 1 or not 0 < self.right <= 1:
            raise UsageError(
                "temperature must be positive, top_p and right in (0, 1], found "
                f"{self.temperature}, {self.top_p} and {self.right}."
            )
        for name, known in (
            ("split", ("test", "train")),
            ("dtype", ("float32", "bfloat16")),
            ("backend", ("auto", "transformers", "vllm")),
        ):
            if getattr(self, name) not in known:
                raise UsageError(f"{name} must be {' or '.join(known)}, found {getattr(self, name)!r}.")

    @property
    def ks(self) -> list[int]:
        """Values of k for pass@k."""
        return self.k or [2**i for i in range(self.samples.bit_length())]
