"""Dynamic sampling on TRL: dead groups are replaced by groups of other prompts, until none is left or rounds run out.

Source: DAPO, arXiv 2503.14476, section 3.2, which draws further prompts until the batch is full of groups that are
neither all right nor all wrong. Here, for rewards of any kind and B groups of G responses,

    draw all B;  R times at most:  each group with max_i r_i = min_i r_i  <-  another prompt's, drawn and scored

so the batch keeps its size, and what is dead after R rounds stays, to be left out by packing as ever.

Other prompts come in an order of the whole train dataset that is a matter of the seed and the steps trained alone: the
same on all processes and in a resumed run, with nothing to keep. Left out are prompts that the batch has or had. A
prompt may come again within an epoch.

What it does to the update. Let U be what a group adds to it, 0 where it is dead, and d(q) the probability of that for
prompt q, d its mean over prompts. A place in the batch goes to the first of R + 1 independent tries that lives, so it
is expected to add

    sum_{k=0}^{R} P(k dead tries before) E[U] = E[U] (1 - d^(R+1)) / (1 - d)

**Prompts that train are those of the data set weighted by 1 - d(q); yet the expected update keeps its direction**,
since dead groups added nothing before either. It is longer by the factor above, which is also the number of groups
drawn for a place: per response drawn, the expected update is as it was. What changes is that steps have equally many
live groups, and that a step grows as d does, which is as if the learning rate did.

That holds for a loss that is a mean over rows, and advantages that are a matter of the group alone. Where the loss is
divided by its tokens (``dapo``: those of dead groups were in the divisor) or weights are renormalised over the batch
it holds only nearly; so it does since a batch has each prompt once.

The mean ``reward`` that TRL logs is over the batch in the end, which was chosen by its rewards:
``gcpo/dynamic/reward``, over the first draw of the batch, is the policy's.

Degenerate: a group without two finite rewards is dead. Where no other prompt is left, dead groups stay.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from accelerate.utils import gather_object
from jaxtyping import Bool
from torch import Tensor

from gcpo.groups import live
from gcpo.integrations.drawing import Draws


@dataclass(frozen=True)
class DynamicSampling:
    """The plan.

    Attributes:
        rounds: R.
        dataset: Rows with a ``prompt``, of which the batches are.
        prompts: How many a batch has.
        seed: Of the order in which others are taken.

    Raises:
        ValueError: The data set has no other prompts, or is streamed, so that none can be had by number.
    """

    rounds: int
    dataset: Any
    prompts: int
    seed: int
    option: ClassVar[str] = "gcpo_dynamic_sampling"
    metrics: ClassVar[str] = "gcpo/dynamic"

    def __post_init__(self) -> None:
        if not hasattr(self.dataset, "__len__"):
            raise ValueError(f"{self.option} cannot be used with a train dataset that is streamed: leave it out.")
        if len(self.dataset) <= self.prompts:
            raise ValueError(
                f"{self.option} takes other prompts than the {self.prompts} of a batch, found {len(self.dataset)} in "
                "the train dataset: give more, or leave it out."
            )

    def parts(self, draws: Draws) -> Iterator[Bool[Tensor, " L"]]:
        """All rows, then round by round those of groups that are replaced."""
        yield torch.ones_like(draws.now)
        scored, others = draws.scored, self._others(draws)
        draws.noted |= {"reward": scored.nanmean().item(), "dead_groups": (~live(scored)).float().mean().item()}
        draws.noted |= {"rounds": 0, "replaced": 0}
        for _ in range(self.rounds):
            dead = (~live(draws.scored)).nonzero().flatten().tolist()
            new = dict(zip(dead, others, strict=False))  # as far as there are others
            if not new:
                return
            for i, group in enumerate(draws.group.tolist()):
                if group in new:
                    draws.inputs[i], draws.prompts[i] = new[group], new[group]["prompt"]
            draws.noted["rounds"] += 1
            draws.noted["replaced"] += len(new)
            yield torch.isin(draws.group, torch.tensor(list(new)))

    def _others(self, draws: Draws) -> Iterator[dict[str, Any]]:
        """Rows of the data set with prompts that the batch has not had."""
        had = {repr(prompt) for prompt in gather_object(list(draws.prompts))}
        columns = list(draws.inputs[0])
        for i in np.random.default_rng((self.seed, draws.step)).permutation(len(self.dataset)).tolist():
            row = self.dataset[i]
            if repr(row["prompt"]) not in had:
                had.add(repr(row["prompt"]))
                yield {name: row[name] for name in columns}
