"""First draws: n0 responses of each group, and the other G - n0 only where the rewards of the first differ.

Source: this project. A group whose rewards are all equal moves nothing, so the rest of a group that looks like one may
be spared; what is spared of a group that only looks like one is the price.

Let U be what a whole group adds to the update: any function that does not care for the order of the responses, and 0
where rewards are equal, so any advantage here times the score. The first n0 are as likely any n0 of the G. So with the
rest drawn only if the first differ, what is expected is not E[U] but

    E[c U],    c = 1 - sum_v C(m_v, n0) / C(G, n0)

with m_v responses of reward v: c is the share of the ways to choose n0 of G whose rewards differ. **So the bias is a
weight c on each group**, n0 / G where one response differs from all others, nearly 1 where rewards are mixed: prompts
that are nearly always or nearly never solved count less. Divided by c (``completion``), a group's update is unbiased
whatever the base, at the price of weights between 1 and G / n0; ``renormalize`` and other statistics of a batch apart.

For rewards 0 and 1, p = P(1) and RLOO or Dr. GRPO, the expected update of a prompt is f times that of whole groups:

    f = 1 - m (n0 (p^(n0-1) + q^(n0-1)) + (m - 1) (p^n0 + q^n0)) / (G (G - 1)),    m = G - n0, q = 1 - p

so the direction of each prompt's own update stays, and f runs from n0 / G (p = 0 or 1) to its largest at p = 1/2. A
group is completed with probability 1 - p^n0 - q^n0.

Degenerate: a response without a finite reward differs from none, among the first or later. A group that is dead, or
that no choice of first draws would complete, has nothing to weigh: c is 1 there.
"""

from math import comb

import torch
from jaxtyping import Float
from torch import Tensor

from gcpo import groups


def completion(rewards: Float[Tensor, "B G"], first: int) -> Float[Tensor, " B"]:
    """c, the share of the ways to draw ``first`` of a whole group's responses whose rewards differ, (B,).

    Args:
        rewards: Of whole groups; not finite where there is none.
        first: n0, between 2 and G.
    """
    r, G = rewards.cpu(), rewards.shape[1]  # Apple's GPUs have no float64
    valid = groups.finite(r)
    ways = torch.tensor([comb(k, first) for k in range(G + 1)], dtype=torch.float64)
    alike = (r.unsqueeze(-1) == r.unsqueeze(-2)) & valid.unsqueeze(-2)
    m, missing = alike.sum(-1), (~valid).sum(-1, keepdim=True)
    # Each of m responses alike brings its m-th part of the draws that are all alike, or without a reward.
    equal = torch.where(valid, (ways[m + missing] - ways[missing]) / m.clamp(min=1), 0).sum(-1) + ways[missing[:, 0]]
    c = 1 - equal / ways[G]
    return torch.where(groups.live(r) & (c > 0), c, 1).to(groups.promote(r).dtype).to(rewards.device)
