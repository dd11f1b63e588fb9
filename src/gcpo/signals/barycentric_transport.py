"""Barycentric transport (BoT): what it costs to carry a group's responses to their common centre.

Source: named in GCPO, arXiv 2605.21801, which gives no formula in any public source; this one is our reconstruction.

Response i is a measure mu_i: the points of its reasoning steps, on the unit sphere, with equal weights.

    BoT = min_nu  mean_i W2^2(mu_i, nu),    nu over K equal point masses, K = most points of a response in the group

It is 0 if all responses take the same steps, in any order. With one point a response nu is their mean, and
BoT = (n - 1) / n * CD; clouds are what it adds to cosine dispersion.

The minimum is sought over the plans P_i (S, K) and the support of nu in turn, as in Cuturi & Doucet (arXiv 1310.4375):
given the plans, nu_k is the mean of the points that P sends there. Entropic plans whose temperature falls from stage
to stage find the basin (batched, on any device); then exact plans, solved by POT, settle in it. ``exact=False`` stops
after the first part. Gradients flow through the points with the plans held fixed (envelope theorem).

Degenerate: one response, or identical ones, give 0. Zero-norm and non-finite points are left out, and a response with
no point left does not count.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gcpo import groups
from gcpo.signals.registry import signal

# Relative to the variance of a group's points. Hot enough to forget where it started, cold enough to tell the plans
# apart; docs/results/barycentre.md has the error these reach against restarts of POT's exact solver.
_HOT, _COLD, _STAGES, _SWEEPS, _LAST_SWEEPS = 0.1, 0.005, 20, 3, 20
_STARTS = 3
_SETTLE = 20


class Clouds(NamedTuple):
    """A batch of groups of point clouds, K = S support points; weights are 0 where nothing counts."""

    x: Float[Tensor, "B G S D"]  # points, relative to the group's mean
    w: Float[Tensor, "B G S"]  # weight of a point in its response
    pi: Float[Tensor, "B G"]  # weight of a response in its group
    b: Float[Tensor, "B K"]  # weight of a support point in the barycentre


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
        exact: Settle with exact transport plans (a loop on the CPU); False keeps the entropic ones.

    Returns:
        (B,) in [0, 1], in float32 (float64 if ``points`` is).
    """
    if points.numel() == 0:
        return groups.promote(points).new_zeros(points.shape[0])
    clouds = _clouds(points, point_mask, mask)
    with torch.no_grad():
        plan = _plan(clouds, exact)
    support = _support(plan, clouds)
    value = (clouds.pi * (plan * _cost(clouds.x, support)).sum((-2, -1))).sum(-1)
    return torch.where((clouds.pi > 0).sum(-1) > 1, value, 0.0)


def _clouds(points: Tensor, point_mask: Tensor | None, mask: Tensor | None) -> Clouds:
    if mask is not None:
        point_mask = mask.unsqueeze(-1) if point_mask is None else point_mask & mask.unsqueeze(-1)
        point_mask = point_mask.expand(points.shape[:-1])
    x, valid = groups.unit(points, point_mask)
    size = valid.sum(-1)
    w = valid / groups.count(valid, x)
    pi = (size > 0) / groups.count(size > 0, x)
    centre = torch.einsum("bg,bgs,bgsd->bd", pi, w, x)
    x = (x - centre[:, None, None]) * valid.unsqueeze(-1)
    largest = size.amax(-1, keepdim=True).clamp(min=1)
    b = (torch.arange(x.shape[2], device=x.device) < largest) / largest.to(x.dtype)
    return Clouds(x, w, pi, b)


def _cost(x: Float[Tensor, "B G S D"], support: Float[Tensor, "B K D"]) -> Float[Tensor, "B G S K"]:
    # Differences, not |x|^2 + |y|^2 - 2xy: that loses near-duplicates.
    distance = torch.cdist(x.flatten(1, 2), support, compute_mode="donot_use_mm_for_euclid_dist")
    return distance.square().view(*x.shape[:3], -1)


def _support(plan: Float[Tensor, "B G S K"], clouds: Clouds) -> Float[Tensor, "B K D"]:
    """The best support for given plans: each point is the mean of what is sent there."""
    sent = torch.einsum("bg,bgsk,bgsd->bkd", clouds.pi, plan, clouds.x)
    return sent / clouds.b.clamp(min=1 / clouds.b.shape[-1]).unsqueeze(-1)


def _plan(clouds: Clouds, exact: bool) -> Float[Tensor, "B G S K"]:
    if clouds.x.shape[2] == 1:  # all of the one point goes to the one point
        return clouds.w.unsqueeze(-1)
    plan = _anneal(clouds)
    return _settle(plan, clouds) if exact else plan


def _anneal(clouds: Clouds) -> Float[Tensor, "B G S K"]:
    """Entropic plans by Sinkhorn sweeps at falling temperature, the best of ``_STARTS`` starts."""
    starts = _starts(clouds)
    B, M = starts.shape[:2]
    many = Clouds(*(t.repeat_interleave(M, 0) for t in clouds))
    tiny = torch.finfo(many.x.dtype).tiny
    w, b = many.w.unsqueeze(-1), many.b[:, None, None]
    log_b = b.log()
    # A response without points has no plan; any finite row keeps its zeros from becoming NaN.
    log_w = torch.where(many.w.sum(-1)[..., None, None] > 0, w.log(), 0.0)
    variance = torch.einsum("bg,bgs,bgsd->b", many.pi, many.w, many.x.square())
    cost = _quick_cost(many.x, starts.flatten(0, 1))
    h = torch.zeros_like(cost[:, :, :1])
    for stage in range(_STAGES + 1):
        temperature = _HOT * (_COLD / _HOT) ** min(stage / (_STAGES - 1), 1)
        eps = (variance * temperature).clamp(min=tiny)[:, None, None, None]
        # One sweep in the log domain, where nothing underflows; the others scale the plan itself, which is cheaper.
        f = -eps * torch.logsumexp((h - cost) / eps + log_b, -1, keepdim=True)
        h = -eps * torch.logsumexp((f - cost) / eps + log_w, -2, keepdim=True)
        plan = ((h - cost) / eps + log_b).softmax(-1) * w
        for _ in range(_SWEEPS if stage < _STAGES else _LAST_SWEEPS):
            column = torch.where(b > 0, b / plan.sum(-2, keepdim=True).clamp(min=tiny), 1)
            plan = plan * column
            plan = plan * (w / plan.sum(-1, keepdim=True).clamp(min=tiny))
            h = h + eps * column.log()
        plan = _feasible(plan, many)
        cost = _quick_cost(many.x, _support(plan, many))
    value = (many.pi * (plan * cost).sum((-2, -1))).sum(-1)
    best = value.view(B, M).argmin(-1)
    plans: Tensor = plan.view(B, M, *plan.shape[1:])
    return plans[torch.arange(B, device=best.device), best]


def _quick_cost(x: Float[Tensor, "B G S D"], support: Float[Tensor, "B K D"]) -> Float[Tensor, "B G S K"]:
    """``_cost`` by one matrix product: near-duplicates look equal, which does not matter for the plans."""
    cross = torch.einsum("bgsd,bkd->bgsk", x, support)
    squares = x.square().sum(-1, keepdim=True) + support.square().sum(-1)[:, None, None]
    return (squares - 2 * cross).clamp(min=0)


def _starts(clouds: Clouds) -> Float[Tensor, "B M K D"]:
    """Supports to start from: the clouds with most points, of those the nearest to the centre."""
    x, w = clouds.x, clouds.w
    distance = torch.einsum("bgs,bgsd->bgd", w, x).square().sum(-1)  # at most 4 on the unit sphere
    order = (distance - 8 * (w > 0).sum(-1)).argsort(-1)[:, :_STARTS]
    # Points that count come first, since the support's weights do.
    packed = x.gather(2, (w == 0).to(torch.int8).argsort(dim=-1, stable=True).unsqueeze(-1).expand_as(x))
    return packed.gather(1, order[..., None, None].expand(-1, -1, *x.shape[2:]))


def _feasible(plan: Float[Tensor, "B G S K"], clouds: Clouds) -> Float[Tensor, "B G S K"]:
    """Round to the marginals (Altschuler et al., arXiv 1705.09634, algorithm 2), so that a cost is never too low."""
    tiny = torch.finfo(plan.dtype).tiny
    w, b = clouds.w, clouds.b.unsqueeze(1)
    plan = plan * (w / plan.sum(-1).clamp(min=tiny)).clamp(max=1).unsqueeze(-1)
    plan = plan * (b / plan.sum(-2).clamp(min=tiny)).clamp(max=1).unsqueeze(-2)
    rows, columns = (w - plan.sum(-1)).clamp(min=0), (b - plan.sum(-2)).clamp(min=0)
    return plan + rows.unsqueeze(-1) * columns.unsqueeze(-2) / rows.sum(-1).clamp(min=tiny)[..., None, None]


def _settle(plan: Float[Tensor, "B G S K"], clouds: Clouds) -> Float[Tensor, "B G S K"]:
    """Exact plans and best support in turn until the plans stay as they are, a group at a time."""
    import numpy as np
    import ot

    x, w, pi, b = (t.double().cpu().numpy() for t in clouds)
    exact = plan.double().cpu().numpy()
    for g in np.flatnonzero((pi > 0).sum(-1) > 1):
        keep = b[g] > 0
        for _ in range(_SETTLE):
            support = np.einsum("g,gsk,gsd->kd", pi[g], exact[g], x[g])[keep] / b[g, keep, None]
            before = exact[g].copy()
            for i in np.flatnonzero(pi[g] > 0):
                rows = w[g, i] > 0
                cost = ((x[g, i, rows, None] - support) ** 2).sum(-1)
                best = ot.emd(w[g, i, rows], b[g, keep], cost, center_dual=False, check_marginals=False)
                exact[g, i][np.ix_(rows, keep)] = best
            if np.allclose(exact[g], before, atol=1e-9):
                break
    return torch.as_tensor(exact, dtype=plan.dtype, device=plan.device)
