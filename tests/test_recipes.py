"""The table of degenerate groups, for every recipe; what recipes say of themselves; how they fail."""

import jaxtyping
import pytest
import torch

from gcpo import RECIPES, recipe, signals
from gcpo.advantages import dr_grpo, score_baseline
from gcpo.advantages.first_draws import completion
from gcpo.probe.live import GradientWatch
from gcpo.signals import SIGNALS

B, G, S, D = 4, 8, 3, 16


def batch(dtype=torch.float32):
    torch.manual_seed(1)
    return {
        "rewards": torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0], [1, 1, 0, 1, 0, 0, 1, 0], [1] * 7 + [0], [0, 1] * 4]).to(
            dtype
        ),
        "embeddings": torch.randn(B, G, D).to(dtype),
        "points": torch.randn(B, G, S, D).to(dtype),
        "labels": torch.randint(0, 4, (B, G)),
        "scores": torch.randn(B, G, D).to(dtype),
        "log_probs": -torch.rand(B, G).mul(20).to(dtype),
    }


def run(name, inputs, **changes):
    return recipe(name, **changes)(**inputs)


@pytest.fixture(params=list(RECIPES))
def name(request):
    return request.param


def test_weights_average_one_and_scale_the_base(name):
    inputs = batch()
    out = run(name, inputs)
    parts = {part: getattr(RECIPES[name], part) for part in ("base", "damping", "norms")}
    base = run("grpo", inputs, **parts)
    assert out.weights.mean().item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(out.advantages, base.advantages * out.weights.unsqueeze(1))
    assert (out.advantages.abs() > 0).all()


@pytest.mark.parametrize("constant", [0.0, 0.3, 1 / 3, 1000.1])
def test_equal_rewards_get_exactly_zero(name, constant):
    inputs = batch()
    inputs["rewards"][2] = constant
    out = run(name, inputs)
    assert out.advantages[2].eq(0).all()
    assert not out.live[2]
    assert out.weights[2] == 0
    assert out.weights[out.live].mean().item() == pytest.approx(1, abs=1e-5)


def test_a_batch_of_dead_groups_is_all_zero(name):
    inputs = batch()
    inputs["rewards"][:] = 0.3
    out = run(name, inputs)
    assert out.advantages.eq(0).all()
    assert out.weights.eq(0).all()


def test_one_response_or_one_left_by_the_mask(name):
    one = {k: v[:, :1] for k, v in batch().items()}
    assert run(name, one).advantages.eq(0).all()
    inputs = batch()
    inputs["mask"] = torch.zeros(B, G, dtype=torch.bool)
    inputs["mask"][:, 3] = True
    out = run(name, inputs)
    assert out.advantages.eq(0).all()
    assert all(value.eq(0).all() for value in out.signals.values())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_non_finite_reward_takes_its_response_out(name, bad):
    inputs = batch()
    inputs["rewards"][1, 4] = bad
    out = run(name, inputs)
    rest = [i for i in range(G) if i != 4]
    without = run(name, {k: v[1:2, rest] for k, v in inputs.items()}, renormalize=False)
    assert out.advantages[1, 4] == 0
    assert not out.counted[1, 4]
    assert out.counted.sum() == B * G - 1
    torch.testing.assert_close(run(name, inputs, renormalize=False).advantages[1:2, rest], without.advantages)


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_a_bad_embedding_is_left_out_of_the_geometry(name, bad):
    inputs = batch()
    inputs["embeddings"][1, 4], inputs["points"][1, 4] = bad, bad
    out = run(name, inputs)
    assert out.advantages.isfinite().all()
    assert (out.advantages[1].abs() > 0).all()
    rest = [i for i in range(G) if i != 4]
    geometry = {"cosine_dispersion", "barycentric_transport"} & set(out.signals)
    without = run(name, {k: v[1:2, rest] for k, v in inputs.items()})
    for signal in geometry:
        torch.testing.assert_close(out.signals[signal][1:2], without.signals[signal], atol=1e-6, rtol=1e-4)


def test_identical_responses_have_no_uncertainty(name):
    inputs = batch()
    inputs["embeddings"][1], inputs["points"][1] = inputs["embeddings"][1, 0], inputs["points"][1, 0]
    inputs["labels"][1] = 0
    out = run(name, inputs)
    for signal, value in out.signals.items():
        if signal != "reward_dispersion":
            assert value[1].item() == pytest.approx(0, abs=1e-6)
    assert (out.advantages[1].abs() > 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_statistics_in_single_precision_and_advantages_in_the_input_dtype(name, dtype):
    inputs = batch(dtype)
    out = run(name, inputs)
    assert out.advantages.dtype == dtype
    assert out.weights.dtype in (torch.float32, torch.float64)
    exact = run(name, {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()})
    torch.testing.assert_close(out.advantages.double(), exact.advantages, atol=2e-2, rtol=2e-2)


def test_integer_rewards_are_welcome(name):
    inputs = batch()
    torch.testing.assert_close(
        run(name, inputs | {"rewards": inputs["rewards"].long()}).advantages, run(name, inputs).advantages
    )


def planted(kind):
    inputs = batch()
    if kind == "nan rewards":
        inputs["rewards"][0] = float("nan")
    elif kind == "infinite rewards":
        inputs["rewards"][0] = float("inf")
    elif kind == "nan geometry":
        inputs["embeddings"][0], inputs["points"][0] = float("nan"), float("nan")
    elif kind == "zero geometry":
        inputs["embeddings"][0], inputs["points"][0] = 0.0, 0.0
    elif kind == "huge geometry":
        inputs["embeddings"][0], inputs["points"][0] = 3e38, 3e38
    return inputs


@pytest.mark.parametrize("kind", ["nan rewards", "infinite rewards", "nan geometry", "zero geometry", "huge geometry"])
def test_a_planted_bad_group_leaves_the_others_bits_as_they_were(name, kind):
    good = run(name, batch(), renormalize=False)
    bad = run(name, planted(kind), renormalize=False)
    assert torch.equal(bad.advantages[1:], good.advantages[1:])
    for signal, value in good.signals.items():
        assert torch.equal(bad.signals[signal][1:], value[1:])
    assert bad.advantages.isfinite().all()


def test_a_group_without_finite_rewards_is_no_part_of_the_renormalization(name):
    alone = run(name, {k: v[1:] for k, v in batch().items()})
    torch.testing.assert_close(run(name, planted("nan rewards")).advantages[1:], alone.advantages)


def test_responses_and_groups_may_come_in_any_order(name):
    inputs = batch()
    responses, groups = torch.randperm(G), torch.randperm(B)
    out = run(name, inputs)
    moved = run(name, {k: v[groups][:, responses] for k, v in inputs.items()})
    torch.testing.assert_close(moved.advantages, out.advantages[groups][:, responses], atol=1e-4, rtol=1e-3)


def test_the_weight_falls_as_the_responses_disagree_more():
    for name in ("gcpo-cd", "gcpo-bot", "seed-grpo"):
        inputs = batch()
        inputs["rewards"][:] = inputs["rewards"][1]
        centre, noise = torch.randn(1, 1, 1, D), torch.randn(1, G, S, D)
        spread = torch.tensor([0.0, 0.1, 0.5, 2.0])[:, None, None, None]
        inputs["points"] = centre + spread * noise
        inputs["embeddings"] = inputs["points"].mean(2)
        inputs["labels"] = torch.tensor([[0] * 8, [0] * 7 + [1], [0] * 4 + [1] * 4, list(range(8))])
        weights = run(name, inputs, calibration="none").weights
        assert (weights.diff() < 0).all(), name


def test_parts_can_be_replaced_one_by_one():
    changed = recipe("gcpo-bot", base="rloo", modulation="focal", alpha=2.0, signal="cosine_dispersion")
    assert (changed.base, changed.modulation, changed.alpha, changed.calibration) == ("rloo", "focal", 2.0, "residual")
    assert changed.needs == ("embeddings",)
    assert recipe("gcpo-bot").base == "grpo"


def test_rewards_of_a_wider_range_are_fine_once_it_is_named():
    rewards = torch.tensor([[0.0, 3.0, 0.0, 0.0]])
    out = recipe("gcpo-cd", reward_range=3.0, renormalize=False)(rewards, embeddings=torch.randn(1, 4, 8))
    assert out.weights.item() < 1
    assert recipe("seed-grpo")(rewards, labels=torch.tensor([[0, 1, 2, 3]])).live.all()


def test_an_empty_batch_is_no_error(name):
    out = run(name, {k: v[:0] for k, v in batch().items()})
    assert out.advantages.shape == (0, G)


def test_without_renormalization_the_weight_is_the_modulation():
    inputs = batch()
    out = run("seed-grpo", inputs, modulation="exponential", alpha=0.5, renormalize=False)
    torch.testing.assert_close(out.weights, torch.exp(-0.5 * out.signals["semantic_entropy"]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: recipe("grop"), "recipe must be one of grpo, .*found 'grop'"),
        (lambda: recipe("grpo", alhpa=1), "a recipe has no part 'alhpa'"),
        (lambda: recipe("grpo", base="ppo"), "base must be one of grpo, dr-grpo, rloo, score-baseline, found 'ppo'"),
        (lambda: recipe("grpo", signal="entropy"), "signal must be one of .*found 'entropy'"),
        (lambda: recipe("grpo", alpha=-1.0), "alpha must be at least 0 and finite, found -1.0"),
        (lambda: recipe("grpo", reward_range=0.0), "reward_range must be positive"),
        (lambda: recipe("gcpo-bot")(torch.rand(2, 4)), "recipe 'gcpo-bot' needs points: pass points="),
        (
            lambda: recipe("gcpo-cd")(torch.rand(2, 4), embeddings=torch.rand(2, 5, 3)),
            "embeddings must have 3 dimensions",
        ),
        (lambda: recipe("gcpo-cd", alpha=float("inf")), "at least 0 and finite, found inf"),
        (
            lambda: recipe("gcpo-cd")(torch.tensor([[0.0, 3.0]]), embeddings=torch.rand(1, 2, 3)),
            "reward_range of recipe 'gcpo-cd' is 1, but rewards of one group lie 3 apart: set reward_range",
        ),
        (
            lambda: recipe("gcpo-bot")(torch.rand(2, 4), points=torch.rand(2, 4, 3, 5), mask=torch.ones(2, 4)),
            "mask must be boolean, found torch.float32",
        ),
        (lambda: recipe("grpo")(torch.rand(8)), r"rewards must be \(groups, responses\), found shape \(8,\)"),
    ],
)
def test_errors_say_what_was_found_and_what_to_do(make, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as it is for users
    with pytest.raises(ValueError, match=message):
        make()


def everything():
    """Every input a host can have."""
    g = torch.Generator().manual_seed(3)
    return batch() | {
        "texts": [[f"{int(i)} and so on" for i in torch.randint(0, 4, (G,), generator=g)] for _ in range(B)],
        "log_probs": -9 * torch.rand(B, G, generator=g),
        "lengths": torch.randint(1, 9, (B, G), generator=g),
        "scores": torch.randn(B, G, 2 * D, generator=g),
    }


@pytest.mark.parametrize("signal", SIGNALS)
def test_every_signal_can_steer_and_every_signal_can_be_logged(signal):
    inputs = everything()
    out = recipe("gcpo-cd", signal=signal, calibration="none")(**inputs)
    assert torch.isfinite(out.advantages).all()
    assert out.weights[out.live].mean().item() == pytest.approx(1.0, abs=1e-5)
    logged = recipe("grpo")(**inputs, also=list(SIGNALS))
    assert set(logged.signals) == set(SIGNALS)
    torch.testing.assert_close(logged.advantages, recipe("grpo")(**inputs).advantages, atol=0, rtol=0)
    if "advantages" not in SIGNALS[signal].needs:  # they depend on the recipe's base
        torch.testing.assert_close(logged.signals[signal], out.signals[signal])


def test_signals_see_the_advantages_of_the_recipes_base():
    inputs = everything()
    for base in ("grpo", "dr-grpo"):
        out = recipe(base)(**inputs, also=["weighted_score_dispersion"])
        expected = signals.weighted_score_dispersion(inputs["scores"], out.advantages, out.counted)
        torch.testing.assert_close(out.signals["weighted_score_dispersion"], expected)


def test_a_signal_without_bound_steers_by_the_recipes_scale():
    rewards = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    scores = torch.tensor([1.0, 2.0, 99.0, 4.0])[:, None, None] * torch.tensor([[0.0], [1.0]])
    method = recipe("dr-grpo", signal="score_dispersion", modulation="focal", scale=2.0, renormalize=False)
    # The dispersions are 1/2, 2 and 8 in the live groups, so the weights are 1 / (1 + v / 2).
    torch.testing.assert_close(method(rewards, scores=scores).weights, torch.tensor([0.8, 0.5, 0.0, 0.2]))


def test_a_signal_without_bound_that_is_zero_everywhere_steers_nothing():
    method = recipe("dr-grpo", signal="score_dispersion", modulation="focal", alpha=1.0, renormalize=False)
    weights = method(torch.tensor([[0.0, 1.0]] * 3), scores=torch.zeros(3, 2, 4)).weights
    assert weights.eq(1).all()


def test_surprisal_stands_for_the_squared_length_of_the_score():
    inputs = batch()
    u, r = -inputs["log_probs"], inputs["rewards"]
    u[0, 3] = 1e-6  # counts as a hundredth of the group's median in the damping: a tenth of the length
    out = run("gcpo-surprisal", {"rewards": r, "log_probs": -u}, renormalize=False)
    median = u.median(-1, keepdim=True).values
    for i in range(G):
        others = torch.arange(G) != i
        baseline = (u * r)[:, others].sum(1) / u[:, others].sum(1)
        expected = (r[:, i] - baseline) / torch.maximum(u[:, i], median[:, 0] / 100).sqrt()
        torch.testing.assert_close(out.advantages[:, i], expected, rtol=1e-3, atol=1e-4)
    assert recipe("gcpo-surprisal").needs == ("log_probs",)


def test_the_score_baseline_and_damping_take_the_lengths_of_the_scores():
    rewards = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    scores = torch.tensor([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [1.0, 1.0, 1.0]]).unsqueeze(-1)
    base = score_baseline(rewards, scores.squeeze(-1))
    out = recipe("grpo", base="score-baseline")(rewards, scores=scores)
    torch.testing.assert_close(out.advantages, base)
    damped = recipe("grpo", base="score-baseline", damping=0.5, renormalize=False)(rewards, scores=scores).advantages
    torch.testing.assert_close(damped, base / scores.squeeze(-1).sqrt())
    assert torch.equal(recipe("grpo", base="score-baseline")(rewards, scores=scores).base, base)
    assert damped[2].eq(0).all()
    renormalised = recipe("grpo", base="score-baseline", damping=0.5)(rewards, scores=scores).advantages
    assert (renormalised[:2] / base[:2]).mean().item() == pytest.approx(1.0, abs=1e-5)
    assert recipe("grpo", damping=0.5).needs == recipe("grpo", damping_below=-1.0).needs == ("scores",)
    assert recipe("gcpo", damping=0.0).needs == recipe("gcpo", damping=0.0, damping_below=0.0).needs == ()
    with pytest.raises(ValueError, match="recipe 'grpo' needs scores: pass scores="):
        recipe("grpo", damping=0.5)(rewards)


def test_damping_below_the_baseline_has_a_power_of_its_own():
    rewards = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    lengths = torch.tensor([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [7.0, 8.0, 9.0]])
    base, scores = dr_grpo(rewards), lengths.unsqueeze(-1)
    method = recipe("dr-grpo", damping=1.0, damping_below=-2.0, renormalize=False)
    raw = torch.where(rewards > 0, base / lengths, base * lengths**2)
    torch.testing.assert_close(method(rewards, scores=scores).advantages, raw)
    # each side by the mean over all live responses: doubling the lengths changes nothing
    method = recipe("dr-grpo", damping=1.0, damping_below=-2.0)
    unit = torch.where(rewards > 0, (1 / lengths)[:2].mean(), (lengths**2)[:2].mean())
    torch.testing.assert_close(method(rewards, scores=scores).advantages, raw / unit)
    torch.testing.assert_close(method(rewards, scores=2 * scores).advantages, raw / unit)
    assert "dr-grpo / |score|^1 above, ^-2 below" in method.describe()
    with pytest.raises(ValueError, match="damping_below must be finite"):
        recipe("grpo", damping_below=float("nan"))


def test_a_count_steers_from_one_upwards():
    labels = torch.tensor([[0, 0, 0, 0], [0, 1, 2, 3]])
    method = recipe("dr-grpo", signal="semantic_sets", modulation="linear", alpha=1.0, renormalize=False)
    weights = method(torch.tensor([[0.0, 1.0, 0.0, 1.0]] * 2), labels=labels).weights
    torch.testing.assert_close(weights, torch.tensor([1.0, 0.0]))


def test_the_range_of_rewards_reaches_the_signal_that_steers():
    rewards = torch.tensor([[0.0, 5.0, 10.0]])
    method = recipe("dr-grpo", signal="reward_spread", reward_range=20.0)
    assert method(rewards).signals["reward_spread"].item() == pytest.approx(0.5)
    with pytest.raises(ValueError, match="rewards of one group lie 10 apart"):
        recipe("dr-grpo", signal="reward_spread")(rewards)


@pytest.mark.parametrize(
    ("method", "inputs", "message"),
    [
        ({"signal": "degree_dispersion"}, {}, "recipe 'grpo' needs similarity: pass similarity="),
        ({"signal": "lexical_dispersion"}, {"texts": [["a"] * G] * (B + 1)}, "texts must be a list of 4 groups of 8"),
        ({}, {"also": ["cosine_dispersion"]}, "signal 'cosine_dispersion' needs embeddings: pass embeddings="),
        ({}, {"also": ["entropy"]}, "a signal must be one of .*, found 'entropy'"),
    ],
)
def test_inputs_of_signals_are_checked(method, inputs, message):
    with pytest.raises(ValueError, match=message):
        recipe("grpo", **method)(torch.rand(B, G), **inputs)


@pytest.mark.parametrize("signal", SIGNALS)
def test_no_signal_lets_a_bad_group_touch_another(signal):
    inputs = everything()
    good = recipe("gcpo", signal=signal, renormalize=False)(**inputs)
    for name in ("embeddings", "points", "scores", "log_probs"):
        inputs[name] = inputs[name].clone()
        inputs[name][0, :3] = float("nan")
    bad = recipe("gcpo", signal=signal, renormalize=False)(**inputs)
    assert torch.equal(bad.advantages[1:], good.advantages[1:])


def test_a_similarity_is_taken_as_it_is():
    inputs = batch()
    own = torch.eye(G).expand(B, G, G)
    out = recipe("gcpo-cd", signal="degree_dispersion")(inputs["rewards"], similarity=own)
    torch.testing.assert_close(out.signals["degree_dispersion"], torch.full((B,), 1 - 1 / G))
    with pytest.raises(ValueError, match=r"similarity must be \(groups, responses, responses\)"):
        recipe("gcpo-cd", signal="degree_dispersion").__call__.__wrapped__(
            recipe("gcpo-cd", signal="degree_dispersion"), inputs["rewards"], similarity=torch.ones(B, G, G + 1)
        )


def test_a_signal_that_steers_must_be_finite_where_rewards_differ(monkeypatch):
    inputs = batch()
    dead_first = inputs["rewards"].clone()
    dead_first[0] = 1.0
    nan_first = torch.tensor([float("nan"), 0.1, 0.2, 0.3])
    steered = recipe("gcpo-cd")(**inputs | {"rewards": dead_first}, signals={"cosine_dispersion": nan_first})
    assert steered.advantages.isfinite().all()
    with pytest.raises(ValueError, match="'cosine_dispersion' of recipe 'gcpo-cd' is not finite for 1 of 4 live"):
        recipe("gcpo-cd")(**inputs, signals={"cosine_dispersion": nan_first})


class NoFloat64(torch.Tensor):
    """A tensor of an accelerator that has no float64, as Apple's; ``cpu()`` takes it home."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.cpu:
            return args[0].as_subclass(torch.Tensor)
        found = super().__torch_function__(func, types, args, kwargs or {})
        if isinstance(found, cls) and found.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return found


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs_where_there_is_no_float64(name):
    inputs = batch()
    there = {key: value.as_subclass(NoFloat64) for key, value in inputs.items()}
    with pytest.raises(TypeError, match="float64"):
        there["rewards"].double()
    found = run(name, there).advantages
    assert torch.equal(found.as_subclass(torch.Tensor), run(name, inputs).advantages)


def test_the_watch_and_first_draws_run_where_there_is_no_float64():
    inputs = batch()
    rewards, scores = inputs["rewards"].as_subclass(NoFloat64), inputs["scores"].as_subclass(NoFloat64)
    live, counted = rewards.amax(1) > rewards.amin(1), rewards.isfinite()
    seen, _ = GradientWatch()(scores, live, counted, scores[:, 0, 0])
    assert seen["variance"] > 0
    assert torch.equal(completion(rewards, 2).as_subclass(torch.Tensor), completion(inputs["rewards"], 2))


def test_no_group_is_no_trouble():
    empty = {name: value[:0] for name, value in everything().items()}
    out = recipe("gcpo")(**empty, also=list(SIGNALS))
    assert out.advantages.shape == (0, G)
    assert all(value.shape == (0,) for value in out.signals.values())
