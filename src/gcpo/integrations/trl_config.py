"""``GCPOConfig``: TRL's configuration of GRPO, and which recipe steers the update."""

from dataclasses import dataclass, field, fields

from trl import GRPOConfig

from gcpo.integrations.rewards import ON_ERROR
from gcpo.recipes import Recipe, recipe
from gcpo.semantics import check_embedder, check_equivalence, check_steps
from gcpo.signals import SIGNALS

_LEAST = {
    "num_generations": 2,  # a group of one has nothing to be compared with
    "num_generations_eval": 1,
    "num_iterations": 1,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "steps_per_generation": 1,
    "generation_batch_size": 1,
    "max_completion_length": 1,
    "gcpo_dynamic_sampling": 1,
    "beta": 0,
}


@dataclass
class GCPOConfig(GRPOConfig):
    r"""Configuration of [`GCPOTrainer`]: everything of TRL's [`GRPOConfig`], and which recipe steers the update.

    The recipe sets the scale of the advantages, so `scale_rewards` and `multi_objective_aggregation` keep their
    defaults. A part of the recipe left at `None` stays as the recipe has it.

    Parameters:
        recipe (`str`, *optional*, defaults to `"gcpo"`):
            Name of the recipe; `gcpo list recipes` shows them.
        gcpo_base (`str`, *optional*):
            Base advantage in place of the recipe's: `"grpo"`, `"dr-grpo"`, `"rloo"` or `"score-baseline"`.
        gcpo_signal (`str`, *optional*):
            Uncertainty signal in place of the recipe's; `gcpo list signals` shows them.
        gcpo_calibration (`str`, *optional*):
            How reward dispersion enters: `"none"`, `"residual"` or `"product"`.
        gcpo_modulation (`str`, *optional*):
            From uncertainty to weight: `"linear"`, `"exponential"`, `"focal"` or `"rational"`.
        gcpo_alpha (`float`, *optional*):
            Strength of the modulation, at least 0.
        gcpo_scale (`float`, *optional*):
            Value of a signal without an upper bound that counts as half (1.0 in every recipe).
        gcpo_damping (`float`, *optional*):
            Power of the length of a response's score that its advantage is divided by, at least 0.
        gcpo_damping_below (`float`, *optional*):
            The same for negative advantages; below 0, improbable responses are blamed more.
        gcpo_norms (`str`, *optional*):
            Where lengths of scores come from: `"scores"` of the output layer, or `"surprisal"`, log-probabilities.
        gcpo_renormalize (`bool`, *optional*):
            Whether weights are scaled to mean 1 over the live groups of a generation batch.
        gcpo_reward_range (`float`, *optional*):
            Largest minus smallest weighted reward a response can get (1.0 in every recipe).
        gcpo_embedder (`str`, *optional*, defaults to `"policy"`):
            Source of the geometry: `"policy"` for the policy's own hidden states, `"hashed"` for hashed n-grams of the
            text, `"minilm"` for all-MiniLM-L6-v2 from its package, else the path or hub id of a sentence-transformers
            model.
        gcpo_equivalence (`str`, *optional*, defaults to `"folded"`):
            When two answers mean the same: `"exact"`, `"folded"` (but for case and spaces) or `"math"` (math-verify);
            for prose `"cosine:T"`, if the embeddings of their responses have a cosine of at least T.
        gcpo_steps (`str`, *optional*, defaults to `"auto"`):
            What a step of a response is: `"lines"`, `"sentences"`, or `"auto"` for lines, and for the sentences of a
            response of a single line.
        gcpo_max_points (`int`, *optional*, defaults to `8`):
            Most steps a response is split into for signals on clouds; beyond it, neighbouring steps are merged.
        gcpo_reward_errors (`str`, *optional*, defaults to `"stop"`):
            What a reward function that fails does to the run: `"strict"`, `"stop"` or `"mask"`; see
            `gcpo.integrations.rewards`.
        gcpo_reward_time_limit (`float`, *optional*):
            Seconds a call of a reward function may take.
        gcpo_log_signals (`list[str]`, *optional*):
            Signals to compute and log besides those of the recipe.
        gcpo_first_draws (`int`, *optional*):
            Responses of each prompt that are drawn first; the rest of its group is drawn only if their rewards differ.
            At least 2 and less than `num_generations`; see `gcpo.advantages.first_draws` for what that does.
        gcpo_unbiased_draws (`bool`, *optional*, defaults to `False`):
            With `gcpo_first_draws`, whether groups are weighted so that the expected update is that of whole groups.
        gcpo_dynamic_sampling (`int`, *optional*):
            Rounds, at most, in which groups whose rewards are all equal are replaced by groups of other prompts of the
            train dataset, as DAPO does; see `gcpo.integrations.dynamic` for what that does.
        gcpo_pack (`bool`, *optional*, defaults to `True`):
            Whether responses that cannot train (advantage 0) and padding are left out of the forward and backward
            passes. The update stays the same; where it would not, this is off and a warning says why.
        gcpo_watch_gradients (`bool`, *optional*, defaults to `True`):
            Whether to log how noisy the gradient is, `gcpo/grad/*`, caught from the backward pass.
    """

    recipe: str = field(default="gcpo", metadata={"help": "Name of the recipe."})
    gcpo_base: str | None = field(default=None, metadata={"help": "Base advantage in place of the recipe's."})
    gcpo_signal: str | None = field(default=None, metadata={"help": "Uncertainty signal in place of the recipe's."})
    gcpo_calibration: str | None = field(default=None, metadata={"help": "How reward dispersion enters."})
    gcpo_modulation: str | None = field(default=None, metadata={"help": "From uncertainty to weight."})
    gcpo_alpha: float | None = field(default=None, metadata={"help": "Strength of the modulation, at least 0."})
    gcpo_scale: float | None = field(default=None, metadata={"help": "Scale of a signal without an upper bound."})
    gcpo_damping: float | None = field(
        default=None, metadata={"help": "Power of the score's length that advantages are divided by."}
    )
    gcpo_damping_below: float | None = field(
        default=None, metadata={"help": "The same for negative advantages; any sign."}
    )
    gcpo_norms: str | None = field(default=None, metadata={"help": "Where lengths of scores come from."})
    gcpo_renormalize: bool | None = field(default=None, metadata={"help": "Scale weights to mean 1 over live groups."})
    gcpo_reward_range: float | None = field(default=None, metadata={"help": "Largest minus smallest reward."})
    gcpo_embedder: str = field(
        default="policy", metadata={"help": "'policy', 'hashed', 'minilm', or a sentence-transformers model."}
    )
    gcpo_equivalence: str = field(default="folded", metadata={"help": "When two answers mean the same."})
    gcpo_steps: str = field(default="auto", metadata={"help": "Split into 'lines', 'sentences' or 'auto'."})
    gcpo_max_points: int = field(default=8, metadata={"help": "Most steps a response is split into."})
    gcpo_reward_errors: str = field(
        default="stop", metadata={"help": "A reward function that fails: 'strict', 'stop' or 'mask'."}
    )
    gcpo_reward_time_limit: float | None = field(
        default=None, metadata={"help": "Seconds a call of a reward function may take."}
    )
    gcpo_log_signals: list[str] = field(default_factory=list, metadata={"help": "Further signals to log."})
    gcpo_first_draws: int | None = field(
        default=None, metadata={"help": "Responses drawn first; the rest of a group only if their rewards differ."}
    )
    gcpo_unbiased_draws: bool = field(
        default=False, metadata={"help": "Weigh groups so that first draws leave the expected update as it is."}
    )
    gcpo_dynamic_sampling: int | None = field(
        default=None, metadata={"help": "Rounds of replacing groups of equal rewards by groups of other prompts."}
    )
    gcpo_pack: bool = field(default=True, metadata={"help": "Leave out of the passes what cannot train."})
    gcpo_watch_gradients: bool = field(default=True, metadata={"help": "Log how noisy the gradient is."})

    def __post_init__(self) -> None:
        self.build_recipe()
        unknown = [name for name in self.gcpo_log_signals if name not in SIGNALS]
        if unknown:
            raise ValueError(f"gcpo_log_signals has no signal {unknown[0]!r}: known are {', '.join(SIGNALS)}.")
        if self.gcpo_embedder != "policy":
            check_embedder(self.gcpo_embedder)
        check_equivalence(self.gcpo_equivalence, "gcpo_equivalence")
        check_steps(self.gcpo_steps, "gcpo_steps")
        if self.gcpo_max_points < 1:
            raise ValueError(f"gcpo_max_points must be at least 1, found {self.gcpo_max_points}.")
        if self.gcpo_reward_errors not in ON_ERROR:
            raise ValueError(
                f"gcpo_reward_errors must be one of {', '.join(ON_ERROR)}, found {self.gcpo_reward_errors!r}."
            )
        if self.gcpo_reward_time_limit is not None and not self.gcpo_reward_time_limit > 0:
            raise ValueError(f"gcpo_reward_time_limit must be above 0, found {self.gcpo_reward_time_limit}.")
        if self.gcpo_unbiased_draws and self.gcpo_first_draws is None:
            raise ValueError("gcpo_unbiased_draws weighs groups for gcpo_first_draws, found none: set it too.")
        if self.gcpo_dynamic_sampling is not None and self.gcpo_first_draws is not None:
            raise ValueError(
                "gcpo_dynamic_sampling and gcpo_first_draws both say what to draw by the first rewards, found both: "
                "leave one out."
            )
        self._check_sizes()
        super().__post_init__()
        first, G = self.gcpo_first_draws, self.num_generations
        if first is not None and not 2 <= first < G:
            raise ValueError(
                f"gcpo_first_draws must be at least 2 and less than num_generations={G}, found {first}: of one "
                "response no rewards differ, and of all there is no rest."
            )
        if self.scale_rewards != "group":
            raise ValueError(
                f"scale_rewards must stay 'group', found {self.scale_rewards!r}: the recipe sets the scale; "
                "choose recipe='dr-grpo' or gcpo_base='dr-grpo' for unscaled advantages."
            )
        if getattr(self, "multi_objective_aggregation", "sum_then_normalize") != "sum_then_normalize":
            raise ValueError(
                f"multi_objective_aggregation must stay 'sum_then_normalize', found "
                f"{self.multi_objective_aggregation!r}: a recipe works on one reward a response."
            )

    def _check_sizes(self) -> None:
        """The host divides by these, or goes on with batches of nothing."""
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, found {value}.")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, found {self.temperature}: responses are sampled.")

    def build_recipe(self) -> Recipe:
        """The recipe with its parts replaced as configured."""
        parts = [f.name for f in fields(Recipe) if f.name not in ("name", "source")]
        changes = {part: value for part in parts if (value := getattr(self, f"gcpo_{part}")) is not None}
        recipe(self.recipe)  # what is wrong with the name is no matter of our prefix
        try:
            return recipe(self.recipe, **changes)
        except ValueError as error:
            raise ValueError(f"gcpo_{error}") from error
