"""What every signal owes, as a table of signals times properties; a new signal joins by one row."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from gcpo.signals import SIGNALS, affinity

NAN, INF = float("nan"), float("inf")
B, G, S, D = 5, 6, 3, 8
WORDS = ["so", "x", "=", "7", "then", "add", "-2", "and", "it", "is"]

Inputs = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """How to draw a signal's inputs, and what is not as usual with it."""

    name: str
    draw: Callable[[torch.Generator], Inputs]
    main: str | None = None  # its floating-point input, whose precision, gradient and bad values are tested
    bad: tuple[float, ...] = (0.0, NAN, INF)  # values of a response that is left out
    rotates: bool = False  # does not change when its input is rotated
    scales: bool = False  # or scaled
    smooth: bool = True  # has a gradient
    floor: bool = True  # takes its lower bound on identical responses


def normal(*shape):
    return lambda g: torch.randn(shape, generator=g)


def embeddings(g):
    return {"embeddings": normal(B, G, D)(g)}


def similarity(g):
    return {"similarity": affinity(normal(B, G, D)(g))}


def labels(g):
    return {"labels": torch.randint(0, 3, (B, G), generator=g)}


def rewards(g):
    return {"rewards": torch.rand(B, G, generator=g)}


def log_probs(g):
    return {"log_probs": -9 * torch.rand(B, G, generator=g)}


def spoken(g):
    return log_probs(g) | {"lengths": torch.randint(1, 9, (B, G), generator=g)}


def texts(g):
    size = torch.randint(1, 9, (B, G), generator=g)
    return {"texts": [[" ".join(WORDS[i] for i in torch.randperm(10, generator=g)[:k]) for k in row] for row in size]}


def points(g):
    return {"points": normal(B, G, S, D)(g)}


def scores(g):
    return {"scores": normal(B, G, D)(g)}


def weighted(g):
    return scores(g) | {"advantages": normal(B, G)(g)}


DIRECTIONS = {"main": "embeddings", "rotates": True, "scales": True}
GRAPH = {"main": "similarity"}
REWARD = {"main": "rewards", "bad": (NAN, INF)}

ROWS = [
    Row("semantic_entropy", labels),
    Row("rao_semantic_entropy", lambda g: labels(g) | spoken(g), "log_probs", bad=(NAN,)),
    Row("semantic_sets", labels),
    Row("predictive_entropy", log_probs, "log_probs", bad=(NAN, INF, -INF), floor=False),
    Row("normalized_predictive_entropy", spoken, "log_probs", bad=(NAN, INF, -INF), floor=False),
    Row("cosine_dispersion", embeddings, **DIRECTIONS),
    Row("von_neumann_entropy", embeddings, **DIRECTIONS),
    Row("effective_rank", embeddings, **DIRECTIONS),
    Row("eigen_score", embeddings, "embeddings", floor=False),
    Row("barycentric_transport", points, "points", rotates=True, scales=True),
    Row("degree_dispersion", similarity, **GRAPH),
    Row("laplacian_eigenvalues", similarity, **GRAPH),
    Row("eccentricity", similarity, **GRAPH, smooth=False),
    Row("kernel_language_entropy", similarity, **GRAPH),
    Row("lexical_dispersion", texts),
    Row("reward_dispersion", rewards, **REWARD),
    Row("reward_spread", rewards, **REWARD),
    Row("reward_quantile_dispersion", rewards, **REWARD),
    Row("pass_rate_margin", rewards, **REWARD, smooth=False),
    Row("score_dispersion", scores, "scores", bad=(NAN, INF), rotates=True),
    Row("weighted_score_dispersion", weighted, "scores", bad=(NAN, INF), rotates=True, floor=False),
]


def drawn(row, seed=0):
    return row.draw(torch.Generator().manual_seed(seed))


def value(row, inputs, **given):
    return SIGNALS[row.name].function(**inputs, **given)


def changed(inputs, **replaced):
    return {name: replaced.get(name, x) for name, x in inputs.items()}


def groups_at(inputs, index):
    pick = lambda x: x[index] if isinstance(x, torch.Tensor) else [x[i] for i in index]  # noqa: E731
    return {name: pick(x) for name, x in inputs.items()}


def responses_at(inputs, index):
    def pick(name, x):
        if isinstance(x, list):
            return [[group[i] for i in index] for group in x]
        return x[:, index][:, :, index] if name == "similarity" else x[:, index]

    return {name: pick(name, x) for name, x in inputs.items()}


def spoilt(row, inputs, bad):
    """The first response of every group with a bad value, in its column of a similarity too."""
    x = inputs[row.main].clone()
    x[:, 0] = bad
    if row.main == "similarity":
        x[:, :, 0] = bad
    return changed(inputs, **{row.main: x})


def every(rows):
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


def bad_values(rows):
    cases = [pytest.param(row, bad, id=f"{row.name}-{bad}") for row in rows for bad in row.bad]
    return pytest.mark.parametrize(("row", "bad"), cases)


FLOATS = [row for row in ROWS if row.main]
SMOOTH = [row for row in FLOATS if row.smooth]


def test_the_table_has_a_row_for_every_signal():
    assert {row.name for row in ROWS} == set(SIGNALS)


@every(ROWS)
class TestEverySignal:
    def test_lies_between_its_bounds(self, row):
        result, signal, n = value(row, drawn(row)), SIGNALS[row.name], torch.full((B,), float(G))
        assert result.shape == (B,)
        assert result.isfinite().all()
        assert not row.floor or (result >= signal.lower(n) - 1e-6).all()
        assert signal.upper is None or (result <= signal.upper(n) + 1e-5).all()

    def test_does_not_depend_on_the_order_of_responses(self, row):
        inputs = drawn(row)
        other = value(row, responses_at(inputs, torch.randperm(G)))
        torch.testing.assert_close(other, value(row, inputs), atol=1e-5, rtol=1e-4)

    def test_follows_the_order_of_groups(self, row):
        inputs, order = drawn(row), torch.randperm(B)
        result = value(row, groups_at(inputs, order))
        torch.testing.assert_close(result, value(row, inputs)[order], atol=1e-6, rtol=1e-5)

    def test_a_group_alone_has_the_value_it_has_in_a_batch(self, row):
        inputs = drawn(row)
        result = value(row, groups_at(inputs, torch.tensor([2])))
        torch.testing.assert_close(result, value(row, inputs)[2:3], atol=1e-6, rtol=1e-5)

    def test_masked_is_removed(self, row):
        inputs, mask = drawn(row), torch.ones(B, G, dtype=torch.bool)
        mask[:, [1, 4]] = False
        kept = value(row, responses_at(inputs, torch.tensor([0, 2, 3, 5])))
        torch.testing.assert_close(value(row, inputs, mask=mask), kept, atol=1e-5, rtol=1e-4)

    def test_identical_responses_give_the_lower_bound(self, row):
        if row.floor:
            result = value(row, responses_at(drawn(row), torch.zeros(G, dtype=torch.long)))
            lower = SIGNALS[row.name].lower(torch.full((B,), float(G)))
            torch.testing.assert_close(result, lower, atol=2e-6, rtol=1e-5)

    def test_one_response_gives_zero(self, row):
        inputs = drawn(row)
        assert value(row, responses_at(inputs, torch.tensor([0]))).eq(0).all()
        for left in ([], [3]):
            mask = torch.zeros(B, G, dtype=torch.bool)
            mask[:, left] = True
            assert value(row, inputs, mask=mask).eq(0).all()

    def test_needs_are_read_off_the_signature(self, row):
        assert set(SIGNALS[row.name].needs) == set(drawn(row))


@every(FLOATS)
class TestFloats:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_goes_in_and_single_precision_comes_out(self, row, dtype):
        inputs = drawn(row)
        x = inputs[row.main].to(dtype)
        result = value(row, changed(inputs, **{row.main: x}))
        assert result.dtype == torch.float32
        torch.testing.assert_close(result, value(row, changed(inputs, **{row.main: x.float()})))

    def test_double_precision_stays(self, row):
        inputs = drawn(row)
        result = value(row, changed(inputs, **{row.main: inputs[row.main].double()}))
        assert result.dtype == torch.float64
        torch.testing.assert_close(result.float(), value(row, inputs), atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("bad", [0.0, NAN, INF, -INF, 3e38])
    def test_a_planted_bad_group_leaves_the_others_bits_as_they_were(self, row, bad):
        inputs = drawn(row)
        x = inputs[row.main].clone()
        x[0] = bad
        before, after = value(row, inputs), value(row, changed(inputs, **{row.main: x}))
        assert torch.equal(after[1:], before[1:])
        assert not after.isnan().any()

    @pytest.mark.gpu
    def test_a_cuda_tensor_gives_the_value_of_the_cpu(self, row):
        inputs = drawn(row)
        result = value(row, {name: x.cuda() for name, x in inputs.items()})
        assert result.is_cuda
        torch.testing.assert_close(result.cpu(), value(row, inputs), atol=1e-5, rtol=1e-4)


@bad_values(FLOATS)
def test_a_bad_response_is_left_out(row, bad):
    inputs = drawn(row)
    kept = value(row, responses_at(inputs, torch.arange(1, G)))
    torch.testing.assert_close(value(row, spoilt(row, inputs, bad)), kept, atol=1e-5, rtol=1e-4)


@every(SMOOTH)
def test_is_differentiable_and_finite_at_duplicates(row):
    inputs = responses_at(drawn(row), torch.tensor([0, 0, 1, 2, 3, 4]))
    inputs[row.main].requires_grad_()
    value(row, inputs).sum().backward()
    assert inputs[row.main].grad.isfinite().all()


@bad_values(SMOOTH)
def test_a_bad_response_has_no_gradient_and_spoils_no_other(row, bad):
    inputs = spoilt(row, drawn(row), bad)
    x = inputs[row.main].requires_grad_()
    value(row, inputs).sum().backward()
    assert x.grad[:, 0].eq(0).all()
    assert x.grad.isfinite().all()
    assert x.grad[:, 1:].abs().sum() > 0


@every([row for row in ROWS if row.rotates])
def test_rotation_does_not_matter(row):
    inputs = drawn(row)
    rotation, _ = torch.linalg.qr(torch.randn(D, D))
    turned = changed(inputs, **{row.main: inputs[row.main] @ rotation})
    torch.testing.assert_close(value(row, turned), value(row, inputs), atol=1e-5, rtol=1e-4)


@every([row for row in ROWS if row.scales])
@pytest.mark.parametrize("scale", [1e-30, 1e-10, 0.3, 1e3, 1e10, 1e30])
def test_scale_does_not_matter(row, scale):
    inputs = drawn(row)
    stretched = changed(inputs, **{row.main: inputs[row.main] * scale})
    torch.testing.assert_close(value(row, stretched), value(row, inputs), atol=1e-5, rtol=1e-4)
