"""Where the geometry of text comes from, as a setting of training, and what it costs."""

import pytest
import torch

from gcpo import GCPOConfig, GCPOTrainer
from gcpo.integrations.steering import meanings, needed
from gcpo.recipes import recipe
from gcpo.semantics import check_equivalence, cluster_by_cosine
from tests import tiny
from tests.integrations.test_trl import SETTINGS, logged, ours, trained


@pytest.mark.parametrize("embedder", ["policy", "hashed"])
def test_embedding_is_shown_as_its_share_of_the_step(tmp_path, embedder):
    accumulate = {"gradient_accumulation_steps": 2, "steps_per_generation": 4, "max_steps": 4}
    trainer = trained(ours(tmp_path, recipe="gcpo-bot", gcpo_embedder=embedder, **accumulate))
    shares, seconds = (logged(trainer, f"gcpo/time/embedding_{name}") for name in ("share", "s"))
    assert len(shares) == len(seconds) == 2, "one a generation batch, which two steps share"
    assert all(0 < share < 1 for share in shares)
    assert all(s < o for s, o in zip(seconds, logged(trainer, "gcpo/overhead_s"), strict=True))


def canned(directory, texts, **settings):
    """Groups of a trainer whose policy said these texts, four a group."""

    class Canned(GCPOTrainer):
        def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
            return super()._calculate_rewards(inputs, prompts, texts, completion_ids_list)

    own = {key: settings.pop(key) for key in ("answer_fn",) if key in settings}
    more = {"max_steps": 1, "per_device_train_batch_size": len(texts), "gcpo_embedder": "hashed"}
    given = {"reward_funcs": tiny.spread, "train_dataset": tiny.dataset(), "processing_class": tiny.tokenizer()}
    args = GCPOConfig(str(directory), **SETTINGS | more | settings)
    return trained(Canned(tiny.model(), args=args, **given, **own)).last_groups


SAID = ["I take the red one", "I take the red one!", "nothing of it", "zzz", *["same"] * 4]


@pytest.mark.parametrize(("threshold", "meanings"), [(0.8, [0, 0, 2, 3]), (0.9999, [0, 1, 2, 3])])
def test_meanings_by_cosine_are_those_of_the_threshold(tmp_path, threshold, meanings):
    groups = canned(tmp_path, SAID, recipe="seed-grpo", gcpo_equivalence=f"cosine:{threshold}")
    assert groups.inputs["labels"].tolist() == [meanings, [0] * 4]
    assert torch.equal(groups.inputs["labels"], cluster_by_cosine(groups.inputs["embeddings"], threshold))


@pytest.mark.parametrize(("answer", "meanings"), [("same", [0, 0, 0, 0]), (None, [0, 1, 2, 3])])
def test_answers_are_found_as_the_user_says(tmp_path, answer, meanings):
    groups = canned(tmp_path, SAID, recipe="seed-grpo", answer_fn=lambda text: answer)
    labels = groups.inputs["labels"]
    assert (labels - labels[:, :1]).tolist() == [meanings, meanings]


STEPS = ["one\ntwo\nthree\nfour", "One thing. Another thing.", "One. Two.\nThree.", "b"]


@pytest.mark.parametrize(
    ("settings", "points"),
    [
        ({}, [4, 2, 2, 1]),
        ({"gcpo_max_points": 2}, [2, 2, 2, 1]),
        ({"gcpo_steps": "lines"}, [4, 1, 2, 1]),
        ({"gcpo_steps": "sentences"}, [4, 2, 3, 1]),
    ],
    ids=str,
)
def test_what_a_step_is_and_how_many_there_are_is_the_users_to_say(tmp_path, settings, points):
    groups = canned(tmp_path, STEPS, recipe="gcpo-bot", gcpo_log_signals=["cosine_dispersion"], **settings)
    assert groups.inputs["point_mask"].sum(-1).tolist() == [points]


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
