"""What every signal owes, as a table of signals times properties; a new signal joins by one row."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from gcpo.signals import SIGNALS

B, G, S, D = 5, 6, 3, 8


@dataclass(frozen=True)
class Row:
    """How to draw a signal's input, and which properties beyond the common ones it has."""

    name: str
    argument: str
    draw: Callable[[torch.Generator], Tensor]
    geometric: bool = True


ROWS = [
    Row("semantic_entropy", "labels", lambda g: torch.randint(0, 3, (B, G), generator=g), geometric=False),
    Row("cosine_dispersion", "embeddings", lambda g: torch.randn(B, G, D, generator=g)),
    Row("barycentric_transport", "points", lambda g: torch.randn(B, G, S, D, generator=g)),
    Row("reward_dispersion", "rewards", lambda g: torch.rand(B, G, generator=g), geometric=False),
]
GEOMETRIC = [row for row in ROWS if row.geometric]


def ids(row):
    return row.name


def drawn(row, seed=0):
    return row.draw(torch.Generator().manual_seed(seed))


def value(row, x, **given):
    return SIGNALS[row.name].function(**{row.argument: x}, **given)


def test_the_table_has_a_row_for_every_signal():
    assert {row.name for row in ROWS} == set(SIGNALS)


@pytest.mark.parametrize("row", ROWS, ids=ids)
class TestEverySignal:
    def test_lies_between_zero_and_its_upper_bound(self, row):
        result = value(row, drawn(row))
        assert result.shape == (B,)
        assert (result >= 0).all()
        assert (result <= SIGNALS[row.name].upper(torch.full((B,), float(G))) + 1e-6).all()

    def test_does_not_depend_on_the_order_of_responses(self, row):
        x = drawn(row)
        torch.testing.assert_close(value(row, x[:, torch.randperm(G)]), value(row, x), atol=1e-5, rtol=1e-4)

    def test_follows_the_order_of_groups(self, row):
        x, order = drawn(row), torch.randperm(B)
        torch.testing.assert_close(value(row, x[order]), value(row, x)[order], atol=1e-6, rtol=1e-5)

    def test_a_group_alone_has_the_value_it_has_in_a_batch(self, row):
        x = drawn(row)
        torch.testing.assert_close(value(row, x[2:3]), value(row, x)[2:3], atol=1e-6, rtol=1e-5)

    def test_masked_is_removed(self, row):
        x = drawn(row)
        mask = torch.ones(B, G, dtype=torch.bool)
        mask[:, [1, 4]] = False
        kept = value(row, x[:, [0, 2, 3, 5]])
        torch.testing.assert_close(value(row, x, mask=mask), kept, atol=1e-5, rtol=1e-4)

    def test_identical_responses_give_zero(self, row):
        x = drawn(row)
        assert value(row, x[:, :1].expand_as(x).contiguous()).abs().max() < 1e-6

    def test_one_response_gives_zero(self, row):
        x = drawn(row)
        assert value(row, x[:, :1]).eq(0).all()
        mask = torch.zeros(B, G, dtype=torch.bool)
        assert value(row, x, mask=mask).eq(0).all()

    def test_needs_are_read_off_the_signature(self, row):
        assert SIGNALS[row.name].needs == (row.argument,)


@pytest.mark.parametrize("row", GEOMETRIC, ids=ids)
class TestGeometry:
    def test_rotation_and_scale_do_not_matter(self, row):
        x = drawn(row)
        rotation, _ = torch.linalg.qr(torch.randn(D, D))
        scale = torch.rand(B, *[1] * (x.ndim - 1)) + 0.5
        torch.testing.assert_close(value(row, x @ rotation * scale), value(row, x), atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_goes_in_and_single_precision_comes_out(self, row, dtype):
        x = drawn(row).to(dtype)
        assert value(row, x).dtype == torch.float32
        torch.testing.assert_close(value(row, x), value(row, x.float()))

    @pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
    def test_a_bad_response_is_left_out(self, row, bad):
        x = drawn(row)
        kept = value(row, x[:, 1:])
        x[:, 0] = bad
        torch.testing.assert_close(value(row, x), kept, atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf"), 3e38])
    def test_a_planted_bad_group_leaves_the_others_bits_as_they_were(self, row, bad):
        x = drawn(row)
        before = value(row, x)
        x[0] = bad
        after = value(row, x)
        assert torch.equal(after[1:], before[1:])
        assert after.isfinite().all()

    def test_is_differentiable_and_finite_at_duplicates(self, row):
        x = drawn(row)
        x[:, 1] = x[:, 0]
        x.requires_grad_()
        value(row, x).sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()

    @pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
    def test_a_bad_response_has_no_gradient_and_spoils_no_other(self, row, bad):
        x = drawn(row)
        x[:, 0] = bad
        x.requires_grad_()
        value(row, x).sum().backward()
        assert x.grad[:, 0].eq(0).all()
        assert x.grad.isfinite().all()
        assert x.grad[:, 1:].abs().sum() > 0

    @pytest.mark.gpu
    def test_a_cuda_tensor_gives_the_value_of_the_cpu(self, row):
        x = drawn(row)
        torch.testing.assert_close(value(row, x.cuda()).cpu(), value(row, x), atol=1e-5, rtol=1e-4)
