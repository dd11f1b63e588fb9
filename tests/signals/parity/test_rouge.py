"""Parity with google's rouge-score, by itself and as lm-polygraph's lexical similarity uses it."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcpo import signals

pytestmark = pytest.mark.peers
rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")

WORDS = ["so", "Then", "60-36", "=", "24", "24.", "(x+1)", "élan", "straße", "的", "and", "and,", "x_1", "24", "+"]
RESPONSES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)
GROUPS = st.integers(2, 6).flatmap(lambda n: st.lists(RESPONSES, min_size=n, max_size=n))


class Tokens:
    """The tokens of ``lexical_dispersion``: rouge-score's own drop signs, by which 60-36 would be 60+36."""

    def tokenize(self, text):
        return re.findall(r"\w+|[^\w\s]", text.casefold())


@given(st.lists(GROUPS, min_size=1, max_size=3))
def test_lexical_dispersion_is_one_minus_mean_rouge_l(texts):
    scorer = rouge_scorer.RougeScorer(["rougeL"], tokenizer=Tokens())

    def dispersion(group):
        pairs = [(a, b) for i, a in enumerate(group) for b in group[:i]]
        return 1 - sum(scorer.score(a, b)["rougeL"].fmeasure for a, b in pairs) / len(pairs)

    expected = torch.tensor([dispersion(group) for group in texts])
    padded = [group + [""] * (6 - len(group)) for group in texts]
    mask = torch.tensor([[i < len(group) for i in range(6)] for group in texts])
    torch.testing.assert_close(signals.lexical_dispersion(padded, mask), expected, atol=1e-5, rtol=1e-5)


def test_lexical_dispersion_is_lm_polygraphs_similarity_on_plain_words():
    """Where there is nothing for its stemmer and its tokenizer to change."""
    estimators = pytest.importorskip("lm_polygraph.estimators")
    texts = [["a b c d", "a c d e", "b a d c e"], ["x", "x", "y"]]
    theirs = torch.as_tensor(estimators.LexicalSimilarity("rougeL")({"sample_texts": texts}))
    torch.testing.assert_close(signals.lexical_dispersion(texts).double(), 1 + theirs, atol=1e-5, rtol=1e-5)
