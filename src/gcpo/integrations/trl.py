"""GCPO on TRL: ``GCPOTrainer``, by wrapping a few methods of TRL's GRPO trainer.

One walk per generation batch: TRL samples and scores; we read the rewards it gathered, embed the responses, ask the
recipe, and put its advantages where TRL's were. No formula lives here. TRL #4525 names this override as the way.
What is known of responses comes from ``trl_measure``, what happens to micro-batches is in ``trl_step``, what makes a
killed run go on in ``resume``.
"""

import inspect
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import trl
from accelerate.utils import gather_object
from torch import Tensor
from trl import GRPOTrainer

from gcpo.advantages.first_draws import completion
from gcpo.groups import finite, live
from gcpo.integrations.drawing import DrawingMixin, Plan
from gcpo.integrations.dynamic import DynamicSampling
from gcpo.integrations.releases import TESTED
from gcpo.integrations.resume import ExactResumeMixin
from gcpo.integrations.rewards import FailedRewardsMixin, guard_all
from gcpo.integrations.spending import FirstDraws
from gcpo.integrations.steering import consider, metrics_of, needed, total
from gcpo.integrations.trl_config import GCPOConfig
from gcpo.integrations.trl_measure import MeasuringMixin
from gcpo.integrations.trl_step import PackedStepMixin
from gcpo.policies.vocabulary import check_vocabulary
from gcpo.probe.live import GradientWatch
from gcpo.recipes import Outcome
from gcpo.semantics import extract_answer, text_embedder

WRAPPED = {
    "_generate_and_score_completions": ("self", "inputs"),
    "_calculate_rewards": ("self", "inputs", "prompts", "completions", "completion_ids_list"),
    "_prepare_inputs": ("self", "generation_batch"),
    "_compute_loss": ("self", "model", "inputs"),
    "_save_checkpoint": ("self", "model", "trial"),
    "_save_rng_state": ("self", "output_dir"),
    "_load_rng_state": ("self", "checkpoint"),
    "_load_optimizer_and_scheduler": ("self", "checkpoint"),
    "_get_train_sampler": ("self", "dataset"),
}
"""The methods of ``GRPOTrainer`` we wrap, with the parameters they have had since TRL 1.0."""


READ = (
    *("_buffered_inputs", "_logs", "_metrics", "_step"),
    *("accelerator", "beta", "importance_sampling_level", "loss_type", "num_generations", "num_generations_eval"),
    *("num_iterations", "processing_class", "reward_weights", "temperature", "top_entropy_quantile", "use_vllm"),
)
"""What we read of a trainer."""


def check_hooks(trainer: type = GRPOTrainer, version: str = trl.__version__) -> None:
    """Make sure that TRL's trainer still has the methods we wrap.

    Raises:
        ImportError: Methods are gone or take other parameters; it names them all.
    """
    changed = []
    for name, expected in WRAPPED.items():
        method = getattr(trainer, name, None)
        found = tuple(inspect.signature(method).parameters) if method else None
        if found != expected:
            became = "is gone" if found is None else f"takes ({', '.join(found)})"
            changed.append(f"{name}({', '.join(expected)}) {became}")
    _refuse(changed, version)


def check_state(trainer: Any, version: str = trl.__version__) -> None:
    """Make sure that a trainer has what we read of it; ImportError, which names it, if it has not."""
    _refuse([f"{name} is gone" for name in READ if not hasattr(trainer, name)], version)


def _refuse(changed: list[str], version: str) -> None:
    if changed:
        raise ImportError(
            f"gcpo cannot steer the GRPOTrainer of trl {version}, in which {'; '.join(changed)}: install a tested "
            f'release, pip install "trl{TESTED}", or a newer gcpo.'
        )


check_hooks()


@dataclass(frozen=True)
class GroupBatch:
    """The last generation batch of training, over all processes: what a report shows of it.

    B groups of G responses; texts are flat lists of B * G, groups contiguous.
    """

    prompts: list[str]
    completions: list[str]
    rewards: Tensor  # (B, G), weighted sum of the reward functions
    outcome: Outcome
    inputs: dict[str, Tensor]  # embeddings, points, point_mask, labels, scores, ...: those that were needed
    embedding_s: float  # seconds that the inputs took
    gradient_variance: Tensor | None = None  # (B,), of the training gradient, 0 for dead groups; None if not watched

    @property
    def signals(self) -> dict[str, Tensor]:
        """The recipe's and the logged ones, (B,)."""
        return self.outcome.signals


@dataclass(frozen=True)
class _Scored:
    """What ``_calculate_rewards`` saw of the batch under way."""

    rewards_per_func: Tensor
    prompts: Sequence[Any]
    completions: Sequence[Any]
    ids: Sequence[Sequence[int]]


# A mixin calls what its host has; to the type checker it is one.
_Host = GRPOTrainer if TYPE_CHECKING else object


class GCPOMixin(
    MeasuringMixin,
    DrawingMixin,
    FailedRewardsMixin,
    PackedStepMixin,
    ExactResumeMixin,
    _Host,  # type: ignore[misc,valid-type]
):
    """Puts a recipe's advantages in place of TRL's; mix in before ``GRPOTrainer`` or a subclass of it.

    Args:
        model: As in ``GRPOTrainer``.
        reward_funcs: As in ``GRPOTrainer``.
        args: A ``GCPOConfig``.
        *rest: As in ``GRPOTrainer``.
        answer_fn: From the text of a response to its final answer (None: it has none); responses with the same
            answer share a meaning. Default: ``gcpo.semantics.extract_answer``.
        **kwargs: As in ``GRPOTrainer``.

    Attributes:
        recipe: The ``Recipe`` in use.
        last_groups: ``GroupBatch`` of the last training generation that was trained on once, None before the first.
    """

    _tag_names = ["trl", "gcpo"]  # noqa: RUF012  TRL's own convention
    _name = "GCPO"
    _paper = {  # noqa: RUF012
        "title": "Why Semantic Entropy Fails: Geometry-Aware and Calibrated Uncertainty for Policy Optimization",
        "id": "2605.21801",
    }

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: GCPOConfig | None = None,
        *rest: Any,
        answer_fn: Callable[[str], str | None] = extract_answer,
        **kwargs: Any,
    ) -> None:
        if args is None:
            name = model if isinstance(model, str) else model.config._name_or_path
            args = GCPOConfig(f"{name.split('/')[-1]}-GCPO")
        if not isinstance(args, GCPOConfig):
            raise TypeError(f"args must be a GCPOConfig, found {type(args).__name__}: change the class name.")
        self.recipe = args.build_recipe()
        self.last_groups: GroupBatch | None = None
        self._answer_fn = answer_fn
        self._watch = GradientWatch()
        self._pending: GroupBatch | None = None
        embedder = None if args.gcpo_embedder == "policy" else text_embedder(args.gcpo_embedder)
        needs = needed(self.recipe, args.gcpo_log_signals, args.gcpo_equivalence)
        reward_funcs = guard_all(reward_funcs, args.gcpo_reward_errors, args.gcpo_reward_time_limit)
        super().__init__(model, reward_funcs, args, *rest, **kwargs)
        check_state(self)
        tokenizer = getattr(self, "_tokenizer", self.processing_class)
        check_vocabulary(self.accelerator.unwrap_model(self.model), getattr(tokenizer, "tokenizer", tokenizer))
        images = _has_images(self.train_dataset)
        self.begin_measuring(needs, embedder, images)
        self.begin_draws(self._build_plan(args), images)
        self.begin_steps(args.gcpo_pack, args.gcpo_watch_gradients)

    def _build_plan(self, args: GCPOConfig) -> Plan | None:
        """What of a generation batch is drawn when; None for all at once."""
        if args.gcpo_first_draws is not None:
            return FirstDraws(args.gcpo_first_draws)
        if args.gcpo_dynamic_sampling is not None:
            B = args.generation_batch_size // self.num_generations
            return DynamicSampling(args.gcpo_dynamic_sampling, self.train_dataset, B, args.seed)
        return None

    def own_state(self) -> dict[str, Any]:
        """The groups seen lately by the running correlation, and those that were not trained on to the end."""
        if self._embedder:  # what shares its batches hangs on what it remembers, which a resumed run does not
            self._embedder.forget()
        pending = None if self._pending is None else asdict(self._pending)
        return {"seen": self._watch.seen, "pending": pending, "step": self.step_state()}

    def take_own_state(self, state: dict[str, Any]) -> None:
        """Take back what ``own_state`` gave."""
        self._watch.seen = state["seen"]
        self.take_step_state(state["step"])
        if (pending := state["pending"]) is not None:
            self._pending = GroupBatch(**pending | {"outcome": Outcome(**pending["outcome"])})

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._scored = _Scored(rewards, prompts, completions, completion_ids_list)
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        mode = "train" if self.model.training else "eval"
        G = self.num_generations if mode == "train" else self.num_generations_eval
        with self.listening() if G > 1 else nullcontext():
            output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if G < 2:
            return output
        started = time.perf_counter()
        groups = self._consider(output, G)
        advantages = self.local(groups.outcome.advantages.flatten())
        output["advantages"] = advantages.to(output["advantages"].dtype)
        further = {"gcpo/overhead_s": time.perf_counter() - started, "gcpo/time/embedding_s": groups.embedding_s}
        self._record(mode, groups, further)
        if mode == "train":
            self._pending = groups
            self.begin_pass(output)
        return output

    def end_pass(self, shares: Tensor | None, watching_s: float, whole_s: float) -> None:
        """Every response of the generation batch has been trained on once: log what it took, and how noisy it was."""
        assert self._pending is not None
        groups, self._pending = self._pending, None
        self._metrics["train"]["gcpo/time/embedding_share"].append(groups.embedding_s / whole_s)
        if shares is not None:
            started, o = time.perf_counter(), groups.outcome
            shares = self.accelerator.gather(shares).unflatten(0, o.advantages.shape)
            signal = None if self.recipe.signal is None else groups.signals[self.recipe.signal]
            seen, variance = self._watch(shares, o.live, o.counted, signal)
            seen["overhead_s"] = time.perf_counter() - started + watching_s
            for name, value in seen.items():
                self._metrics["train"][f"gcpo/grad/{name}"].append(value)
            groups = replace(groups, gradient_variance=variance)
        self.last_groups = groups

    def _consider(self, output: dict[str, Any], G: int) -> GroupBatch:
        """The recipe's view of the batch; equal on every process, since all it takes is gathered."""
        scored = self._scored
        rewards = total(scored.rewards_per_func, self.reward_weights).view(-1, G)
        own = [_text(c) for c in scored.completions]
        texts = gather_object(own)
        wanted = finite(rewards)
        if not self.args.gcpo_log_signals:  # a dead group weighs 0 whatever its geometry
            wanted &= live(rewards).unsqueeze(-1)
        started = time.perf_counter()
        found = self.measured(output, own, scored.ids, wanted.flatten())
        inputs = {name: value.unflatten(0, (-1, G)) for name, value in found.items()}
        embedding_s = time.perf_counter() - started
        measured = inputs.pop("measured", None)
        outcome, inputs = consider(
            self.recipe,
            rewards,
            inputs,
            texts,
            also=self.args.gcpo_log_signals,
            answer_fn=self._answer_fn,
            equivalence=self.args.gcpo_equivalence,
        )
        if measured is not None:
            outcome = self.without_unmeasured(outcome, (measured | ~outcome.counted).all(-1))
        if self.args.gcpo_unbiased_draws and self.model.training:
            c = completion(rewards, self.args.gcpo_first_draws)
            outcome = replace(outcome, advantages=outcome.advantages / c.unsqueeze(-1), weights=outcome.weights / c)
        prompts = gather_object([_text(p) for p in scored.prompts])
        return GroupBatch(prompts, texts, rewards, outcome, inputs, embedding_s)

    def _record(self, mode: str, groups: GroupBatch, further: dict[str, float]) -> None:
        """Our metrics beside TRL's, and the advantages that train in its table of completions."""
        outcome = groups.outcome
        for name, value in (metrics_of(outcome) | further).items():
            self._metrics[mode][name].append(value)
        table = self._logs["advantages"]
        advantages = outcome.advantages.flatten().tolist()[-(table.maxlen or len(table)) :]
        for _ in advantages:
            table.pop()
        table.extend(advantages)


class GCPOTrainer(GCPOMixin, GRPOTrainer):
    """TRL's ``GRPOTrainer`` whose groups are weighed by geometry-aware, calibrated uncertainty (arXiv 2605.21801).

    Takes what ``GRPOTrainer`` takes, with a ``GCPOConfig`` for ``args``, and ``answer_fn``.
    """


class TRLTrainer(ExactResumeMixin, GRPOTrainer):
    """TRL's ``GRPOTrainer`` as it is, to compare with; only its checkpoints are ours."""

    last_groups: GroupBatch | None = None


def _has_images(dataset: Any) -> bool:
    """Whether rows of a data set have images, by its columns or, where it does not know them, by its first row."""
    return not {"image", "images"}.isdisjoint(getattr(dataset, "column_names", None) or next(iter(dataset), ()))


def _text(content: Any) -> str:
    """Text of a prompt or completion, plain, conversational, or in blocks of content."""
    if isinstance(content, str):
        return content
    parts = (m.get("content") or m.get("text") or "" if isinstance(m, dict) else str(m) for m in content)
    return "\n".join(map(_text, parts))
