"""From the hidden states of tokens to one vector a response, or one a step.

N responses, T tokens, S steps, D features.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gcpo import groups


def pool(states: Float[Tensor, "N T D"], mask: Bool[Tensor, "N T"]) -> Float[Tensor, "N D"]:
    """Mean state of the tokens that count; zeros where none does."""
    points, _ = pool_steps(states, torch.zeros_like(mask, dtype=torch.long), mask, max_steps=1)
    return points.squeeze(1)


def pool_steps(
    states: Float[Tensor, "N T D"], steps: Int[Tensor, "N T"], mask: Bool[Tensor, "N T"], max_steps: int
) -> tuple[Float[Tensor, "N S D"], Bool[Tensor, "N S"]]:
    """Mean state of each step, and which steps have a token.

    Args:
        states: Hidden states.
        steps: Step each token belongs to, below ``max_steps``.
        mask: Which tokens count.
        max_steps: S.

    Returns:
        Points in fp32 (float64 stays), zeros where a step has no token, and the mask of points.
    """
    states = groups.promote(states)
    member = (torch.nn.functional.one_hot(steps, max_steps).bool() & mask.unsqueeze(-1)).to(states)
    size = member.sum(1)
    points = torch.einsum("nts,ntd->nsd", member, states.masked_fill(~mask.unsqueeze(-1), 0))
    return points / size.clamp(min=1).unsqueeze(-1), size > 0


def step_index(ends: Bool[Tensor, "N T"], mask: Bool[Tensor, "N T"], max_steps: int) -> Int[Tensor, "N T"]:
    """Step each token belongs to, where a step ends with every token in ``ends``.

    Responses of more than ``max_steps`` steps have neighbours merged, evenly along the response.
    """
    ended = (ends & mask).cumsum(-1)
    step = torch.cat([torch.zeros_like(ended[:, :1]), ended[:, :-1]], dim=-1)
    total = step.masked_fill(~mask, 0).amax(-1, keepdim=True) + 1
    merged = torch.where(total > max_steps, step * max_steps // total, step)
    return merged.clamp(max=max_steps - 1)
