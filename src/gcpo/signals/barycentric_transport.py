"""Barycentric transport (BoT): what it costs to carry a group's responses to their common centre.

Source: named in GCPO, arXiv 2605.21801, which gives no formula in any public source; this one is our reconstruction.

Response i is a measure mu_i: the points of its reasoning steps, on the unit sphere, with equal weights.

    BoT = min_nu  mean_i W2^2(mu_i, nu),    nu over K equal point masses, K = most points of a response in the group

It is 0 if all responses take the same steps, in any order. With one point a response nu is their mean, and
BoT = (n - 1) / n * CD; clouds are what it adds to cosine dispersion.

Given the transport plans P_i (S, K), point k of nu is best put at the mean y_k of what they send there; then

    BoT = 1 - mean_k |y_k|^2

so the plans are to make the y_k long. Responses are visited in turn, each time for the exact plan to what the *others*
send. (With plans and support in turn, as in Cuturi & Doucet, arXiv 1310.4375, a response is held in place by its own
share of the support, and the search ends in worse minima.) The first visited has nothing to follow and so gives nu its
points; it is the response of most points and nearest to the centre, and visits go outwards from there. The default
tries some responses as the first one and goes on with the best; ``exact=False`` makes one round of visits and no more.

Gradients flow through the points with the plans held fixed (envelope theorem).

Degenerate: one response, or identical ones, give 0. Zero-norm and non-finite points are left out, and a response with
no point left does not count.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gcpo import groups
from gcpo.signals.cosine_dispersion import direction_variance
from gcpo.signals.registry import signal

# docs/results/barycentre.md has the errors and times that other numbers give.
_STARTS, _ROUNDS = 3, 2
# Masses on n and on k points are cut into lcm(n, k) grains; with more than these the network simplex is faster.
_GRAINS = 36


@signal(upper=torch.ones_like, source="named in arXiv 2605.21801; formula reconstructed")
def barycentric_transport(
    points: Float[Tensor, "B G S D"],
    point_mask: Bool[Tensor, "B G S"] | None = None,
    mask: Bool[Tensor, "B G"] | None = None,
    exact: bool = True,
) -> Float[Tensor, " B"]:
    """Mean squared Wasserstein-2 distance of a group's responses to their barycentre.

    Args:
        points: The steps of each response, any scale; they are projected to the unit sphere.
        point_mask: Which points exist.
        mask: Which responses count.
        exact: Search from several starts, and tell near-duplicates apart. False is some five times faster, on average
            1 % larger (at most 13 % where it was measured) and blind below 1e-6. Both find plans by a loop on the
            CPU.

    Returns:
        (B,) in [0, 1], in float32 (float64 if ``points`` is).
    """
    if points.numel() == 0:
        return groups.promote(points).new_zeros(points.shape[0])
    if points.shape[2] == 1:  # the one plan there is
        return direction_variance(points.squeeze(2), _both(point_mask, mask, points).squeeze(2))[0]
    clouds = _clouds(points, point_mask, mask)
    with torch.no_grad():
        plan, y = _search(clouds, _STARTS, _ROUNDS) if exact else _search(clouds, starts=1, rounds=0)
    live = (clouds.size > 0).sum(-1)
    share = 1 / live.clamp(min=1)[:, None, None]
    value = _cost(clouds, plan * share.unsqueeze(-1)) if exact else _quick_cost(clouds, plan, y, share)
    return torch.where(live > 1, value, 0.0)


class Clouds(NamedTuple):
    """Groups of point clouds, the points that count first.

    They are not scaled to unit length but where they are used: writing them out would cost a fifth of the fast form.
    """

    x: Float[Tensor, "B G S D"]  # of any length
    length: Float[Tensor, "B G S"]
    size: Int[Tensor, "B G"]  # points that count


def _clouds(points: Tensor, point_mask: Tensor | None, mask: Tensor | None) -> Clouds:
    x, length, valid = groups.tame(points, _both(point_mask, mask, points))
    if (valid[..., 1:] > valid[..., :-1]).any():
        first = (~valid).to(torch.int8).argsort(dim=-1, stable=True)
        x, length = x.gather(2, first.unsqueeze(-1).expand_as(x)), length.gather(2, first)
    return Clouds(x, length, valid.sum(-1))


def _both(point_mask: Tensor | None, mask: Tensor | None, points: Tensor) -> Bool[Tensor, "B G S"]:
    every = torch.ones(points.shape[:-1], dtype=torch.bool, device=points.device)
    every = every if point_mask is None else every & point_mask
    return every if mask is None else every & mask.unsqueeze(-1)


def _search(clouds: Clouds, starts: int, rounds: int) -> tuple[Float[Tensor, "B G S K"], Float[Tensor, "B K D"]]:
    """Exact plans to a barycentre of K = S points, and what they send: the best start's round, and more rounds."""
    visits = _visits(clouds)
    best, sent = _round(clouds, visits, None)
    for start in range(1, min(starts, len(visits))):
        plan, y = _round(clouds, visits.roll(-start, 0), None)
        longer = y.square().sum((-2, -1)) > sent.square().sum((-2, -1))
        best = torch.where(longer[:, None, None, None], plan, best)
        sent = torch.where(longer[:, None, None], y, sent)
    for _ in range(rounds):
        best, sent = _round(clouds, visits, best)
    return best, sent


def _visits(clouds: Clouds) -> Int[Tensor, "G B"]:
    """The order of a group's responses: those of most points first, then the nearest to the group's centre."""
    x, length, size = clouds
    mean = ((1 / length).unsqueeze(-2) @ x).squeeze(-2) / size.clamp(min=1).unsqueeze(-1)
    centre = mean.sum(-2) / groups.count(size > 0, x)
    distance = mean.square().sum(-1) - 2 * (mean @ centre.unsqueeze(-1)).squeeze(-1)  # less what is common to all
    return (distance - 8 * size).argsort(-1).T


def _round(
    clouds: Clouds, visits: Int[Tensor, "G B"], plan: Float[Tensor, "B G S K"] | None
) -> tuple[Float[Tensor, "B G S K"], Float[Tensor, "B K D"]]:
    """One visit to each response, for the best plan to what the others send; all plans, and what they send.

    A ``plan`` that is given is written over.
    """
    B, G, S, D = clouds.x.shape
    again = plan is not None
    plan = clouds.x.new_zeros(B, G, S, S) if plan is None else plan
    y = _sent(clouds, plan) if again else clouds.x.new_zeros(B, S, D)
    largest = clouds.size.amax(-1)
    x, length, size, plans = (t.flatten(0, 1) for t in (*clouds, plan))
    for rows in visits + G * torch.arange(B, device=x.device):
        cloud, shrink = x.index_select(0, rows), 1 / length.index_select(0, rows).unsqueeze(-1)
        if again:
            y.baddbmm_((plans.index_select(0, rows) * shrink).mT, cloud, alpha=-1)
        best = _plans(cloud @ y.mT * shrink, size[rows], largest)
        y.baddbmm_((best * shrink).mT, cloud)
        plans.index_copy_(0, rows, best)
    return plan, y


def _plans(
    gain: Float[Tensor, "B S K"], size: Int[Tensor, " B"], largest: Int[Tensor, " B"]
) -> Float[Tensor, "B S K"]:
    """The plan of the largest gain for each of B responses, from ``size`` to ``largest`` points of equal mass."""
    from scipy.optimize import linear_sum_assignment

    costs = -gain.cpu().double().numpy()  # on the CPU first: Apple's GPUs have no float64
    plans = np.zeros_like(costs)
    for plan, cost, n, k in zip(plans, costs, size.tolist(), largest.tolist(), strict=True):
        if n == k > 0:
            plan[linear_sum_assignment(cost[:n, :k])] = 1 / k
        elif n > 0:
            plan[:n, :k] = _uneven(cost[:n, :k])
    return torch.from_numpy(plans).to(gain.dtype).to(gain.device)


def _uneven(cost: Any) -> Any:
    """Exact plan between equal masses on n and on k points: (n, k) arrays."""
    n, k = cost.shape
    grains = math.lcm(n, k)
    if grains > _GRAINS:
        import ot

        # It can call a problem of negative costs infeasible.
        return ot.emd(np.full(n, 1 / n), np.full(k, 1 / k), cost - cost.min(), center_dual=False)
    from scipy.optimize import linear_sum_assignment

    plan = np.zeros_like(cost)
    rows, columns = linear_sum_assignment(cost.repeat(grains // n, 0).repeat(grains // k, 1))
    np.add.at(plan, (rows * n // grains, columns * k // grains), 1 / grains)
    return plan


def _cost(clouds: Clouds, plan: Float[Tensor, "B G S K"]) -> Float[Tensor, " B"]:
    """Transport cost to the best support, from differences alone: near-duplicates are not lost.

    With p_k the share of a point x that goes to y_k, and t = sum_k p_k y_k:

        sum_k p_k |x - y_k|^2 = |x - t|^2 + sum_kl p_k p_l |y_k - y_l|^2 / 2
    """
    y = _sent(clouds, plan) * clouds.size.amax(-1)[:, None, None]
    w = plan.sum(-1)
    p = plan / torch.where(w > 0, w, 1).unsqueeze(-1)
    t = (p.flatten(1, 2) @ y).view_as(clouds.x)
    away = torch.linalg.vector_norm(torch.addcdiv(t, clouds.x, clouds.length.unsqueeze(-1), value=-1), dim=-1)
    between = torch.cdist(y, y, compute_mode="donot_use_mm_for_euclid_dist").square()
    spread = (p @ between.unsqueeze(1) * p).sum(-1) / 2
    value: Tensor = (w * (away.square() + spread)).sum((-2, -1))
    return value


def _quick_cost(
    clouds: Clouds, plan: Float[Tensor, "B G S K"], y: Float[Tensor, "B K D"], share: Float[Tensor, "B 1 1"]
) -> Float[Tensor, " B"]:
    """The same as 1 - mean_k |y_k|^2, without another pass over the points unless a gradient is asked for."""
    y = share * (_sent(clouds, plan) if clouds.x.requires_grad else y)
    return (1 - clouds.size.amax(-1) * y.square().sum((-2, -1))).clamp(min=0)


def _sent(clouds: Clouds, plan: Float[Tensor, "B G S K"]) -> Float[Tensor, "B K D"]:
    """What the plans send to each point of the barycentre: y_k / K where their masses add up to 1."""
    return (plan / clouds.length.unsqueeze(-1)).flatten(1, 2).mT @ clouds.x.flatten(1, 2)
