"""Two processes see the same groups, weights and metrics, and each trains on its own part."""

import pytest
import torch

from tests.integrations.launched import launch

RANKS = """
import sys, torch
from tests.integrations.launched import end
from tests.integrations.test_resume import build
settings = {"per_device_train_batch_size": 6, "max_steps": 1, "save_strategy": "no"}  # groups of 4 straddle
trainer = build(sys.argv[1], recipe="gcpo-bot", **settings)
seen = []
packed = trainer._compute_loss
def watched(model, inputs):
    seen.append(inputs["advantages"].clone())
    return packed(model, inputs)
trainer._compute_loss = watched
trainer.train()
groups, rank = trainer.last_groups, trainer.accelerator.process_index
found = {"weights": groups.outcome.weights, "advantages": groups.outcome.advantages, "texts": groups.completions,
         "variance": groups.gradient_variance, "points": groups.inputs["points"], "own": torch.cat(seen)}
torch.save(found, f"{sys.argv[1]}/rank{rank}.pt")
end()
"""


@pytest.mark.slow
def test_every_process_weighs_the_whole_batch_and_trains_on_its_part(tmp_path):
    (tmp_path / "ranks.py").write_text(RANKS)
    launch(tmp_path / "ranks.py", tmp_path)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    for name in ("weights", "advantages", "points", "variance"):
        assert torch.equal(first[name], second[name]), name
    assert first["texts"] == second["texts"]
    both = torch.cat([first["own"], second["own"]])
    assert first["advantages"].shape == (3, 4)
    torch.testing.assert_close(both.sort().values, first["advantages"].flatten().sort().values)
