"""A host whose responses are a matter of their place in the global batch and of the step, whoever asks for them."""

import torch
from trl import GRPOTrainer

from gcpo import GCPOMixin


class ScriptedHost(GRPOTrainer):
    """``GRPOTrainer`` that draws nothing; ``drawn`` lists the places it was asked for, call by call."""

    def _generate_single_turn(self, prompt_ids, *_):
        draws = getattr(self, "_draws", None)
        L = self.args.per_device_train_batch_size * self.args.steps_per_generation
        rows = range(L) if draws is None else draws.now.nonzero().flatten().tolist()
        assert len(rows) == len(prompt_ids)
        places = [self.accelerator.process_index * L + i for i in rows]
        self.drawn = [*getattr(self, "drawn", []), places]
        return [self._say(place, self.state.global_step) for place in places], None

    def _say(self, place, step=0):
        draw = torch.Generator().manual_seed(1000 * step + place)
        return torch.randint(3, 95, (3 + 5 * place % 9,), generator=draw).tolist()


class Scripted(GCPOMixin, ScriptedHost):
    """Steered by a recipe."""
