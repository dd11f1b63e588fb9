"""What else barycentric transport could be computed by: the forms that benchmarks/barycentre.py compares.

Each takes the clouds of B groups, of unit points, and gives (B,).
"""

import importlib
import math
from collections.abc import Callable

import torch
from torch import Tensor

from gcpo.signals import barycentric_transport

ours = importlib.import_module("gcpo.signals.barycentric_transport")
Clouds = ours.Clouds
Form = Callable[[Clouds], Tensor]


def mask(clouds: Clouds) -> Tensor:
    """Which points count."""
    return torch.arange(clouds.x.shape[2]) < clouds.size.unsqueeze(-1)


def first(clouds: Clouds) -> Tensor:
    """The points of the responses that are visited first."""
    return clouds.x[torch.arange(len(clouds.x)), ours._visits(clouds)[0]]


def searched(starts: int, rounds: int) -> Form:
    """Ours with other numbers of starts and rounds."""

    def form(clouds: Clouds) -> Tensor:
        return cost(clouds, ours._search(clouds, starts, rounds)[0])

    return form


def cost(clouds: Clouds, plan: Tensor) -> Tensor:
    """Cost of the plans."""
    return ours._cost(clouds, plan / (clouds.size > 0).sum(-1)[:, None, None, None])


def alternating(iterations: int) -> Form:
    """Plans of all responses and support in turn, as in POT, but with our exact plans; one start."""

    def form(clouds: Clouds) -> Tensor:
        x, _, size = clouds
        B, G, S, _ = x.shape
        largest = size.amax(-1).repeat_interleave(G)
        y = first(clouds)
        for _ in range(iterations):
            gain = torch.einsum("bgsd,bkd->bgsk", x, y).flatten(0, 1)
            plan = ours._plans(gain, size.flatten(), largest).view(B, G, S, S)
            y = ours._sent(clouds, plan)
        return cost(clouds, plan)

    return form


def entropic(stages: int, sweeps: int = 4, hot: float = 0.1, cold: float = 0.01) -> Form:
    """Sinkhorn plans at falling temperature (relative to the points' variance), no exact plan anywhere; one start."""

    def form(clouds: Clouds) -> Tensor:
        x, _, size = clouds
        largest = size.amax(-1)[:, None, None, None]
        w = (mask(clouds) / size.unsqueeze(-1).clamp(min=1)).unsqueeze(-1)
        b = (torch.arange(x.shape[2]) < largest) / largest  # (B, 1, 1, K)
        y = first(clouds)
        centre = (w * x).sum(2).mean(1)
        variance = 1 - centre.square().sum(-1)
        for stage in range(stages):
            heat = hot * (cold / hot) ** ((stage + 1) / stages)
            # |x| = 1, so the cost is |y|^2 - 2 x . y up to what does not depend on the plan.
            price = y.square().sum(-1)[:, None, None] - 2 * torch.einsum("bgsd,bkd->bgsk", x, y)
            price = price - price.amin(-1, keepdim=True)
            plan = (-price / (heat * variance)[:, None, None, None]).exp().clamp(min=1e-30) * w * (b > 0)
            for _ in range(sweeps):
                plan = plan * (b / plan.sum(-2, keepdim=True).clamp(min=1e-30))
                plan = plan * (w / plan.sum(-1, keepdim=True).clamp(min=1e-30))
            # Rounded to its marginals (Altschuler et al., arXiv 1705.09634), so that a cost is never too low.
            plan = plan * (b / plan.sum(-2, keepdim=True).clamp(min=1e-30)).clamp(max=1)
            rows, columns = w - plan.sum(-1, keepdim=True), b - plan.sum(-2, keepdim=True)
            plan = plan + rows * columns / rows.sum(-2, keepdim=True).clamp(min=1e-30)
            y = torch.einsum("bgsk,bgsd->bkd", plan, x) * largest.squeeze(1) / x.shape[1]
        return 1 - (b.squeeze((1, 2)) * y.square().sum(-1)).sum(-1)

    return form


def bures(rounds: int = 2) -> Form:
    """Each response as the Gaussian of its mean and covariance: a lower bound (Gelbrich, 1990).

    W2^2 of Gaussians is |m - m'|^2 + min_U |A - U B|^2 over orthogonal U, with A^T A and B^T B the covariances: the
    same search as ours, with polar factors for permutations.
    """

    def form(clouds: Clouds) -> Tensor:
        x, _, size = clouds
        valid, n = mask(clouds).unsqueeze(-1), size.clamp(min=1)[..., None, None]
        mean = (x * valid).sum(2, keepdim=True) / n
        a = (x - mean) * valid / n.sqrt()
        y = first(clouds._replace(x=a))
        for _ in range(rounds):
            left, _, right = torch.linalg.svd(torch.einsum("bkd,bgsd->bgks", y, a))
            y = (left @ right @ a).mean(1)
        between = (mean - mean.mean(1, keepdim=True)).square().sum((-2, -1)).mean(-1)
        return between + a.square().sum((-2, -1)).mean(-1) - y.square().sum((-2, -1))

    return form


def sliced(directions: int) -> Form:
    """Mean over directions of the variance of quantiles, times D: a sliced distance has no plans."""

    def form(clouds: Clouds) -> Tensor:
        x, _, size = clouds
        S, D = x.shape[2:]
        theta = torch.nn.functional.normalize(
            torch.randn(D, directions, generator=torch.Generator().manual_seed(0)), dim=0
        )
        line = (x @ theta).masked_fill(~mask(clouds).unsqueeze(-1), torch.inf).sort(dim=2).values
        # Quantiles of clouds of other sizes are read at the middle of S equal parts.
        at = ((torch.arange(S) + 0.5) / S * size.unsqueeze(-1)).long()
        quantiles = line.gather(2, at.unsqueeze(-1).expand_as(line))
        return D * quantiles.var(1, correction=0).mean((-2, -1))

    return form


def means(clouds: Clouds) -> Tensor:
    """Variance of the responses' means: what BoT is more than, since W2 splits off translations."""
    mean = clouds.x.sum(2) / clouds.size.clamp(min=1).unsqueeze(-1)
    return (mean - mean.mean(1, keepdim=True)).square().sum(-1).mean(-1)


def some_responses(n: int) -> Form:
    """The fast form on n of the responses, evenly."""

    def form(clouds: Clouds) -> Tensor:
        kept = slice(None, None, max(clouds.x.shape[1] // n, 1))
        return barycentric_transport(clouds.x[:, kept], mask(clouds)[:, kept], exact=False)

    return form


def some_points(n: int) -> Form:
    """The fast form on at most n points a response, evenly."""

    def form(clouds: Clouds) -> Tensor:
        x, _, size = clouds
        step = (size.unsqueeze(-1) / n).clamp(min=1)
        at = (torch.arange(n) * step).long().clamp(max=x.shape[2] - 1)
        kept = x.gather(2, at.unsqueeze(-1).expand(*at.shape, x.shape[-1]))
        return barycentric_transport(kept, torch.arange(n) < size.unsqueeze(-1), exact=False)

    return form


def projected(dimensions: int) -> Form:
    """Plans of the fast form from points under a random projection, cost from the points themselves."""

    def form(clouds: Clouds) -> Tensor:
        onto = torch.randn(clouds.x.shape[-1], dimensions, generator=torch.Generator().manual_seed(0))
        low = clouds._replace(x=clouds.x @ onto / math.sqrt(dimensions))
        plan, _ = ours._search(low, starts=1, rounds=0)
        y = ours._sent(clouds, plan)
        return ours._quick_cost(clouds, plan, y, 1 / (clouds.size > 0).sum(-1)[:, None, None])

    return form


def default(clouds: Clouds) -> Tensor:
    """Ours, as called by users."""
    return barycentric_transport(clouds.x, mask(clouds))


def fast(clouds: Clouds) -> Tensor:
    """Ours with exact=False, as called by users."""
    return barycentric_transport(clouds.x, mask(clouds), exact=False)


FORMS = {
    "default: 3 starts, 2 more rounds": default,
    "exact=False: 1 start, 1 round": fast,
    "1 start, 1 more round": searched(1, 1),
    "1 start, 2 more rounds": searched(1, 2),
    "2 starts, 2 more rounds": searched(2, 2),
    "8 starts, 4 more rounds": searched(8, 4),
    "alternating, 1 iteration": alternating(1),
    "alternating, 2 iterations": alternating(2),
    "alternating, 10 iterations": alternating(10),
    "entropic, 1 stage": entropic(1),
    "entropic, 3 stages": entropic(3),
    "entropic, 20 stages": entropic(20, cold=0.005),
    "Bures, 2 rounds": bures(),
    "sliced, 16 directions": sliced(16),
    "sliced, 64 directions": sliced(64),
    "variance of means": means,
    "fast form on 4 responses": some_responses(4),
    "fast form on 8 responses": some_responses(8),
    "fast form on 4 points": some_points(4),
    "plans in 16 random dimensions": projected(16),
}
