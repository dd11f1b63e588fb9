"""First draws on TRL: n0 responses of each prompt are drawn and scored, then the rest of the groups worth completing.

What this does to the update is in ``advantages.first_draws``, how it is carried out in ``drawing``. First draws are
spread over a group, so that a group on several processes gives each of them some.

The mean ``reward`` that TRL logs is over what was drawn, in which groups worth completing have more rows:
``gcpo/first_draws/reward``, over first draws alone, is the policy's. So are the metrics that reward functions log.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from gcpo.groups import live
from gcpo.integrations.drawing import Draws


@dataclass(frozen=True)
class FirstDraws:
    """The plan.

    Attributes:
        first: n0, between 2 and G - 1.
    """

    first: int
    option: ClassVar[str] = "gcpo_first_draws"
    metrics: ClassVar[str] = "gcpo/first_draws"

    def parts(self, draws: Draws) -> Iterator[Bool[Tensor, " L"]]:
        """The first of each group, then what is left of those whose rewards differ."""
        yield draws.place * self.first % draws.G < self.first  # n0 of every G, as far apart as can be
        scored = draws.scored
        worth = live(scored)
        draws.noted |= {"completed": worth.float().mean().item(), "reward": scored.nanmean().item()}
        yield worth[draws.group] & ~draws.drawn
        spared = zip(draws.filled, draws.drawn.tolist(), strict=True)
        draws.counts["tokens_saved"] = sum(len(ids) for ids, drawn in spared if not drawn)
