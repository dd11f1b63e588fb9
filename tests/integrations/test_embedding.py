"""Where the geometry of text comes from, as a setting of training, and what it costs."""

import pytest
import torch

from gcpo.integrations.steering import meanings, needed
from gcpo.recipes import recipe
from gcpo.semantics import check_equivalence, cluster_by_cosine
from tests.integrations.test_trl import logged, ours, trained


@pytest.mark.parametrize("embedder", ["policy", "hashed"])
def test_embedding_is_shown_as_its_share_of_the_step(tmp_path, embedder):
    accumulate = {"gradient_accumulation_steps": 2, "steps_per_generation": 4, "max_steps": 4}
    trainer = trained(ours(tmp_path, recipe="gcpo-bot", gcpo_embedder=embedder, **accumulate))
    shares, seconds = (logged(trainer, f"gcpo/time/embedding_{name}") for name in ("share", "s"))
    assert len(shares) == len(seconds) == 2, "one a generation batch, which two steps share"
    assert all(0 < share < 1 for share in shares)
    assert all(s < o for s, o in zip(seconds, logged(trainer, "gcpo/overhead_s"), strict=True))


def test_meanings_by_cosine_are_those_of_the_embeddings(tmp_path):
    settings = {"recipe": "seed-grpo", "gcpo_embedder": "hashed", "gcpo_equivalence": "cosine:0.3", "max_steps": 1}
    groups = trained(ours(tmp_path, **settings)).last_groups
    assert torch.equal(groups.inputs["labels"], cluster_by_cosine(groups.inputs["embeddings"], 0.3))
    assert 1 < len(groups.inputs["labels"][0].unique()) < 4 or len(groups.inputs["labels"].unique()) > 1


def test_only_what_needs_labels_needs_embeddings_for_them():
    assert needed(recipe("seed-grpo"), equivalence="cosine:0.8") == needed(recipe("seed-grpo")) | {"embeddings"}
    assert needed(recipe("grpo"), equivalence="cosine:0.8") == needed(recipe("grpo"))


def test_meanings_by_answers_and_by_cosine():
    inputs = {"embeddings": torch.tensor([[[1.0, 0], [0.9, 0.1], [0, 1]]])}
    said = ["#1", "#2", "#2"]
    assert meanings(said, inputs, 3).tolist() == [[0, 1, 1]]
    assert meanings(said, inputs, 3, equivalence="cosine:0.9").tolist() == [[0, 0, 2]]


@pytest.mark.parametrize("name", ["alike", "cosine", "cosine:", "cosine:0", "cosine:1.1", "cosine:nan", "math:1", ""])
def test_an_equivalence_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match="equivalence must be one of exact, folded, math or cosine:T with T in"):
        check_equivalence(name)
