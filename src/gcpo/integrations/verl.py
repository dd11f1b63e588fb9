"""GCPO on verl, as a plug-in: wraps the advantage step of verl's trainers, and the forward pass of its FSDP engine.

verl loads this module in every process that imports verl, Ray workers too: by the entry point ``verl.plugins`` since
0.9.0, before by ``VERL_USE_EXTERNAL_MODULES=gcpo.integrations.verl``. Loading it imports nothing, neither verl nor the
rest of gcpo: verl drops what a plug-in raises while it loads, and a run that was to be steered would go on as plain
GRPO. What it wraps, it wraps right after verl has imported the module it lives in.

One walk per batch: verl's own estimator runs; we read rewards, texts and vectors of the rows, ask the recipe, and put
its advantages where verl's were, before the actor is updated. No formula lives here. ``+algorithm.gcpo.enable=True``
turns it on; an actor that is about to be updated without it raises. With ``algorithm.adv_estimator=gcpo``, a name that
only this plug-in registers, verl stops at its first advantage step where the plug-in is not loaded.
"""

import functools
import importlib.abc
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from gcpo.integrations.driver import Driver, Options

V1 = "verl.trainer.ppo.v1.trainer_base"
LEGACY = "verl.trainer.ppo.ray_trainer"
ENGINE = "verl.workers.engine.fsdp.transformer_impl"
ESTIMATORS = "verl.trainer.ppo.core_algos"

WRAPPED: dict[str, dict[str, tuple[str, ...]]] = {
    V1: {
        "PPOTrainer.__init__": ("self", "config"),
        "PPOTrainer._compute_old_log_prob": ("self", "batch", "metrics"),
        "PPOTrainer._compute_advantage": ("self", "batch", "metrics"),
        "PPOTrainer._update_actor": ("self", "batch", "metrics"),
    },
    LEGACY: {
        "RayPPOTrainer.__init__": ("self", "config", "tokenizer"),
        "compute_advantage": (
            *("data", "adv_estimator", "gamma", "lam", "num_repeat", "norm_adv_by_std_in_grpo", "config"),
        ),
        "RayPPOTrainer._update_actor": ("self", "batch"),
    },
    ENGINE: {"FSDPEngineWithLMHead.forward_step": ("self", "micro_batch", "loss_function", "forward_only")},
}
"""What we wrap, with the parameters it has had since verl 0.9.0; of the legacy trainer's __init__ the first ones."""

TESTED = 'pip install "verl>=0.9.1,<0.10"'


def check_hooks(module: ModuleType) -> None:
    """Make sure that a module of verl still has what we wrap.

    Raises:
        ImportError: Something is gone or takes other parameters.
    """
    for path, expected in WRAPPED[module.__name__].items():
        found = _parameters(module, path)
        if found[: len(expected)] != expected or (len(found) > len(expected) and "__init__" not in path):
            raise ImportError(
                f"gcpo wraps {path}({', '.join(expected)}) of {module.__name__}, but in this verl it is "
                f"{'(' + ', '.join(found) + ')' if found else 'gone'}: install a tested version, {TESTED}, or run "
                "without gcpo, VERL_USE_EXTERNAL_PLUGINS=none."
            )


def _parameters(module: ModuleType, path: str) -> tuple[str, ...]:
    found: Any = module
    for name in path.split("."):
        found = getattr(found, name, None) if found is not None else None  # None itself has an __init__
    return tuple(inspect.signature(found).parameters) if found else ()


# Turned on or not


def options_of(algorithm: Any) -> "Options | None":
    """What ``config.algorithm.gcpo`` says; None if gcpo is not enabled.

    Raises:
        ValueError: An option is wrong.
    """
    given = None if algorithm is None else algorithm.get("gcpo")
    if given is None:
        return None
    if hasattr(given, "_metadata"):  # a node of OmegaConf, whose lists are no lists
        from omegaconf import OmegaConf

        given = OmegaConf.to_container(given, resolve=True)
    if not isinstance(given, Mapping):
        raise ValueError(
            f"algorithm.gcpo must hold options, found {given!r}: write +algorithm.gcpo.enable=True instead."
        )
    from gcpo.integrations.driver import read_options

    try:
        options = read_options({str(key): value for key, value in given.items()})
    except ValueError as error:
        raise ValueError(f"algorithm.gcpo.{error}") from error
    return options if options.enable else None


def driver_of(algorithm: Any) -> "Driver | None":
    """The recipe of a run as ``config.algorithm`` has it; None if gcpo is not enabled.

    Raises:
        ValueError: An option is wrong, or does not go with the rest of the configuration.
    """
    options = options_of(algorithm)
    if options is None:
        return None
    from gcpo.integrations.driver import Driver

    driver = Driver(options)
    _check_algorithm(algorithm, driver)
    return driver


def _check_algorithm(algorithm: Any, driver: "Driver") -> None:
    """What else is configured must not be lost under the recipe's advantages."""
    replaces = not driver.options.scales
    if replaces and algorithm.get("use_kl_in_reward"):
        raise ValueError(
            "algorithm.use_kl_in_reward would be lost, since the recipe's advantages replace verl's: put the "
            "divergence in the loss, actor_rollout_ref.actor.use_kl_loss=True, or set algorithm.gcpo.base=verl."
        )
    if replaces and str(getattr(algorithm.get("adv_estimator"), "value", algorithm.get("adv_estimator"))) == "gae":
        raise ValueError(
            "algorithm.adv_estimator=gae trains a critic, and the recipe's advantages would replace what it says: set "
            "adv_estimator=grpo, or algorithm.gcpo.base=verl to scale the critic's."
        )
    if algorithm.get("use_pf_ppo"):
        raise ValueError("algorithm.use_pf_ppo draws rows anew and breaks groups up: set use_pf_ppo=False.")
    correction = algorithm.get("rollout_correction")
    if driver.from_policy and correction is not None and correction.get("bypass_mode"):
        raise ValueError(
            f"{' and '.join(sorted(driver.from_policy))} come from the actor's forward pass, which "
            "algorithm.rollout_correction.bypass_mode leaves out: set bypass_mode=False or choose signals and an "
            "embedder that need no pass."
        )


def _driver(trainer: Any) -> "Driver | None":
    """The driver of a trainer, made once."""
    if "_gcpo" not in vars(trainer):
        trainer._gcpo = driver_of(trainer.config.algorithm)
    found: Driver | None = trainer._gcpo
    return found


def _not_reached(what: str) -> RuntimeError:
    return RuntimeError(
        f"algorithm.gcpo is enabled, but {what}, so this step would be plain verl: call the method of the parent "
        "class, or set algorithm.gcpo.enable=False."
    )


# The V1 trainer


_ASKED = ("gcpo_wanted", "gcpo_max_points", "gcpo_temperature")


def _ask_the_engine(trainer: Any) -> None:
    """What comes from the actor's pass is asked for with the batch that goes to it."""

    @_wrapping(trainer, "_compute_old_log_prob")
    def compute_old_log_prob(original: Callable[..., Any], self: Any, batch: Any, metrics: dict[str, Any]) -> Any:
        driver = _driver(self)
        if driver is None or not driver.from_policy:
            return original(self, batch, metrics)
        temperature = self.config.actor_rollout_ref.rollout.temperature
        asked = (",".join(sorted(driver.from_policy)), driver.options.max_points, temperature)
        batch.extra_info.update(zip(_ASKED, asked, strict=True))
        try:
            output = original(self, batch, metrics)
        finally:
            for name in _ASKED:
                batch.extra_info.pop(name, None)
        for name in _ASKED:
            output.extra_info.pop(name, None)
        return output


def _wrap_v1(host: ModuleType) -> None:
    trainer = host.PPOTrainer
    _ask_the_engine(trainer)

    @_wrapping(trainer, "__init__")
    def init(original: Callable[..., None], self: Any, config: Any) -> None:
        original(self, config)
        _driver(self)  # a wrong option fails here, before workers start

    @_wrapping(trainer, "_compute_advantage")
    def compute_advantage(original: Callable[..., Any], self: Any, batch: Any, metrics: dict[str, Any]) -> Any:
        with _inside_v1():
            batch = original(self, batch, metrics)
        driver = _driver(self)
        if driver is not None:
            from gcpo.integrations.verl_rows import V1Batch

            rows = V1Batch(host, self, batch, driver)
            steered = driver(rows)
            rows.put(steered.values, driver.options.scales)
            metrics.update(steered.metrics)
            self._gcpo_steered = frozenset(batch.keys)
            if batch.fields:  # vectors have done their work: the actor's update must not fetch them
                batch.fields = [name for name in batch.fields if not name.startswith("gcpo_")]
        return batch

    @_wrapping(trainer, "_update_actor")
    def update_actor(original: Callable[..., Any], self: Any, batch: Any, metrics: dict[str, Any]) -> Any:
        if _driver(self) is not None and not vars(self).get("_gcpo_steered", frozenset()).issuperset(batch.keys):
            raise _not_reached(f"{type(self).__name__}._compute_advantage went past it")
        return original(self, batch, metrics)


# The legacy trainer, and fully_async and one_step_off, which are made of it

_now: dict[str, Any] = {"inside_v1": False, "legacy": None}


@contextmanager
def _inside_v1() -> Iterator[None]:
    """V1 calls the legacy function too; there it is V1 that is steered."""
    _now["inside_v1"] = True
    try:
        yield
    finally:
        _now["inside_v1"] = False


def _wrap_legacy_trainer(trainer: Any) -> None:
    def new(cls: type, *_: Any, **__: Any) -> Any:
        _now["legacy"] = object.__new__(cls)
        return _now["legacy"]

    trainer.__new__ = new  # fully_async's and one_step_off's trainers never call the parent's __init__

    @_wrapping(trainer, "__init__")
    def init(original: Callable[..., None], self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        driver = _driver(self)
        if driver is not None and driver.from_policy:
            from gcpo.integrations.verl_rows import only_in_v1

            raise only_in_v1(driver.from_policy)

    @_wrapping(trainer, "_update_actor")
    def update_actor(original: Callable[..., Any], self: Any, batch: Any) -> Any:
        metrics = batch.meta_info.pop("gcpo", None)
        if _driver(self) is not None and metrics is None:
            raise _not_reached(f"{type(self).__name__} computed its advantages elsewhere")
        output = original(self, batch)
        output.meta_info["metrics"].update(metrics or {})
        return output


def _wrap_legacy(host: ModuleType) -> None:
    _wrap_legacy_trainer(host.RayPPOTrainer)

    @_wrapping(host, "compute_advantage")
    def compute_advantage(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        data = original(*args, **kwargs)
        asked = inspect.signature(original).bind(*args, **kwargs).arguments.get("config")
        if _now["inside_v1"] or asked is None or asked.get("gcpo") is None:
            return data
        if _now["legacy"] is None:
            raise _not_reached("compute_advantage was called by a trainer that is no RayPPOTrainer")
        driver = _driver(_now["legacy"])
        if driver is not None:
            from gcpo.integrations.verl_rows import LegacyBatch

            rows = LegacyBatch(data, _now["legacy"].tokenizer, driver.options.embedder)
            steered = driver(rows)
            rows.put(steered.values, driver.options.scales)
            data.meta_info["gcpo"] = steered.metrics
        return data


# The actor's forward pass


def _wrap_engine(host: ModuleType) -> None:
    @_wrapping(host.FSDPEngineWithLMHead, "forward_step")
    def forward_step(
        original: Callable[..., Any], self: Any, micro_batch: Any, loss_function: Any, forward_only: bool
    ) -> Any:
        wanted = host.tu.get_non_tensor_data(data=micro_batch, key="gcpo_wanted", default="")
        if not (wanted and forward_only):
            return original(self, micro_batch, loss_function, forward_only)
        from gcpo.integrations.verl_engine import listening, measure_of

        keys = (*_ASKED[1:], "use_fused_kernels")
        settings = [host.tu.get_non_tensor_data(data=micro_batch, key=key, default=None) for key in keys]
        with listening(self.module, micro_batch, measure_of(self, wanted.split(","), *settings)) as measured:
            loss, output = original(self, micro_batch, loss_function, forward_only)
        output["model_output"] |= {f"gcpo_{name}": value for name, value in measured.items()}
        return loss, output


# A name that verl refuses where this plug-in is not loaded


def _register_estimator(host: ModuleType) -> None:
    def gcpo(response_mask: "torch.Tensor", config: Any = None, **_: Any) -> tuple["torch.Tensor", "torch.Tensor"]:
        options = options_of(config)
        if options is None or options.scales:
            raise ValueError(
                "algorithm.adv_estimator='gcpo' leaves all to the recipe: set +algorithm.gcpo.enable=True, and no "
                "algorithm.gcpo.base=verl."
            )
        nothing = response_mask.float() * 0
        return nothing, nothing

    host.register_adv_est("gcpo")(gcpo)


# Wrapping


def _wrapping(owner: Any, name: str) -> Callable[[Callable[..., Any]], None]:
    """Put the decorated function in the place of ``owner.name``, which becomes its first argument."""

    def put(function: Callable[..., Any]) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(original, *args, **kwargs)

        setattr(owner, name, wrapper)

    return put


_AFTER_IMPORT: dict[str, Callable[[ModuleType], None]] = {
    ESTIMATORS: _register_estimator,
    V1: _wrap_v1,
    LEGACY: _wrap_legacy,
    ENGINE: _wrap_engine,
}


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds nothing itself; runs a hook right after a named module was executed."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of a module in a package's directory, its loader followed by our hook."""
        spec = PathFinder.find_spec(name, path, target) if name in _AFTER_IMPORT else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _hook(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _hook(module: ModuleType) -> None:
    if module.__name__ in WRAPPED:
        check_hooks(module)
    _AFTER_IMPORT[module.__name__](module)


def install() -> None:
    """Wrap what verl has imported already, and the rest as it is imported; the second call does nothing."""
    if any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _AfterImport())
    for name in _AFTER_IMPORT:
        if name in sys.modules:
            _hook(sys.modules[name])


install()
