"""Meanings by bidirectional entailment: a real small model for the plumbing, planted entailments for the meanings."""

import itertools
import sys
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcpo.semantics import BidirectionalEntailment
from gcpo.signals import semantic_entropy

LABELS = {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}
WORDS = ["paris", "london", "is", "the", "capital", "of", "france", "city", "yes", "no", "it", "what"]


@pytest.fixture(scope="module")
def nli(tmp_path_factory):
    """A BERT of 20,000 random parameters with a word tokenizer, saved to a folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=24,
        initializer_range=1.0,
        num_labels=3,
        id2label=LABELS,
        label2id={label: i for i, label in LABELS.items()},
    )
    folder = tmp_path_factory.mktemp("nli")
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


class Planted:
    """Model and tokenizer in one: entails what it is told to, and remembers what it was asked."""

    config = SimpleNamespace(id2label={0: "entailment", 1: "not_entailment"})
    model_max_length = 10**30
    device = torch.device("cpu")

    def __init__(self, entailed):
        self.entailed, self.asked, self.broken_by = set(entailed), [], None

    def eval(self):
        return self

    def __call__(self, premises=None, hypotheses=None, input_ids=None, **_):
        if premises is None:
            return SimpleNamespace(logits=input_ids)
        pairs = list(zip(premises, hypotheses, strict=True))
        self.asked += pairs
        logits = torch.tensor([[2.0, 0.0] if pair in self.entailed else [0.0, 1.0] for pair in pairs])
        logits[[self.broken_by in pair for pair in pairs]] = torch.nan
        return Batch(input_ids=logits)


class Batch(dict):
    def to(self, _device):
        return self


def judge(entailed, **settings):
    planted = Planted(entailed)
    return BidirectionalEntailment(planted, planted, **settings), planted


def both_ways(*pairs):
    return {*pairs, *((b, a) for a, b in pairs)}


TEXTS = ["paris", "it is paris", "london", "paris", "the capital is paris is it", ""]


def test_probabilities_are_those_of_the_model_one_pair_at_a_time(nli):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(nli), AutoTokenizer.from_pretrained(nli)
    p = torch.eye(6)
    with torch.no_grad():
        for (i, a), (j, b) in itertools.product(enumerate(TEXTS), repeat=2):
            if a and b:
                p[i, j] = 1 if a == b else model(**tokenizer(a, b, return_tensors="pt")).logits.softmax(-1)[0, 2]
    found = BidirectionalEntailment(nli, batch_size=3)(TEXTS, 6)
    torch.testing.assert_close(found.similarity[0], (p + p.T) / 2)
    loaded = BidirectionalEntailment(model.train(), tokenizer)(TEXTS, 6)
    torch.testing.assert_close(loaded.similarity, found.similarity)
    assert torch.equal(loaded.labels, found.labels)


def test_the_order_of_responses_does_not_matter_to_a_real_model(nli):
    texts = [" ".join(words) for words in itertools.islice(itertools.permutations(WORDS, 2), 0, 70, 10)]
    meanings = BidirectionalEntailment(nli, threshold=0.3)
    expected, order = meanings(texts, 7), [3, 6, 0, 2, 5, 1, 4]
    turned = BidirectionalEntailment(nli, threshold=0.3)([texts[i] for i in order], 7)
    torch.testing.assert_close(turned.similarity[0], expected.similarity[0][order][:, order], rtol=0, atol=0)
    partition = expected.labels[0][order]
    assert torch.equal(turned.labels[0][:, None] == turned.labels[0], partition[:, None] == partition)


def test_pairs_too_long_for_the_model_are_cut_with_a_warning(nli):
    meanings = BidirectionalEntailment(nli)
    with pytest.warns(UserWarning, match="reads 24 tokens, found a pair of 50"):
        found = meanings(["paris is " * 20, "london is the city of it is"], 2)
    assert found.similarity.isfinite().all()


def test_one_direction_merges_nothing():
    meanings, _ = judge({("a", "b"), ("b", "c"), ("c", "a")})
    assert meanings(["a", "b", "c"], 3).labels.tolist() == [[0, 1, 2]]


def test_both_directions_merge():
    meanings, _ = judge(both_ways(("a", "c")))
    labels, similarity = meanings(["a", "b", "c", "a"], 4)
    assert labels.tolist() == [[0, 1, 0, 0]]
    yes, no = torch.tensor([2.0, 0.0]).softmax(-1)[0], torch.tensor([0.0, 1.0]).softmax(-1)[0]
    expected = torch.tensor([[1, no, yes, 1], [no, 1, no, no], [yes, no, 1, yes], [1, no, yes, 1]])
    torch.testing.assert_close(similarity[0], expected)


def test_a_threshold_replaces_the_likeliest_class():
    texts = ["a", "b"]
    assert judge(both_ways(("a", "b")), threshold=0.9)[0](texts, 2).labels.tolist() == [[0, 1]]
    assert judge((), threshold=0.2)[0](texts, 2).labels.tolist() == [[0, 0]]


@pytest.mark.parametrize("order", list(itertools.permutations("abc")))
def test_every_order_of_a_chain_has_the_same_entropy(order):
    """c ~ a and c ~ b, but not a ~ b: greedy merging gives an entropy of 0 or of 0.64 by the order."""
    meanings, _ = judge(both_ways(("a", "c"), ("b", "c")))
    assert semantic_entropy(meanings(list(order), 3).labels).item() == 0


@given(
    st.sets(st.tuples(st.sampled_from("abcde"), st.sampled_from("abcde"))),
    st.lists(st.sampled_from(["a", "b", "c", "d", "e", " "]), min_size=6, max_size=6).flatmap(
        lambda texts: st.tuples(st.just(texts), st.permutations(range(6)))
    ),
)
def test_meanings_are_a_partition_whatever_the_order(entailed, drawn):
    texts, order = drawn
    labels, similarity = judge(entailed)[0](texts, 6)
    turned, turned_similarity = judge(entailed)[0]([texts[i] for i in order], 6)
    partition = labels[0][list(order)]
    assert torch.equal(turned[0][:, None] == turned[0], partition[:, None] == partition)
    torch.testing.assert_close(turned_similarity[0], similarity[0][order][:, order], rtol=0, atol=0)
    assert torch.equal(similarity, similarity.mT)


def test_only_distinct_pairs_of_a_group_are_asked_and_each_once():
    meanings, planted = judge(())
    meanings(["a", "b", "a", " ", "a", "b", "c", "c"], 4)
    assert sorted(planted.asked) == list(itertools.permutations("abc", 2))
    meanings(["c", "a", "b", "a"], 4)
    assert len(planted.asked) == 6


def test_a_full_memory_asks_again():
    meanings, planted = judge((), cache_size=0)
    for _ in range(2):
        meanings(["a", "b"], 2)
    assert len(planted.asked) == 4


def test_the_context_stands_before_both_texts_of_its_own_group():
    meanings, planted = judge(both_ways(("q a", "q b")))
    labels = meanings(["a", "b", "a", "b"], 2, contexts=["q", "r"]).labels
    assert labels.tolist() == [[0, 0], [0, 1]]
    assert set(planted.asked) == both_ways(("q a", "q b"), ("r a", "r b"))


def test_a_text_that_says_nothing_stands_alone_even_beside_another():
    labels, similarity = judge(())[0](["", " ", "a"], 3, contexts=["q"])
    assert labels.tolist() == [[0, 1, 2]]
    assert torch.equal(similarity[0, :2], torch.eye(3)[:2])


def test_a_masked_response_is_not_asked_about_and_bridges_nothing():
    meanings, planted = judge(both_ways(("a", "b"), ("b", "c")))
    assert meanings(["a", "b", "c"], 3).labels.tolist() == [[0, 0, 0]]
    planted.asked.clear()
    fresh, planted = judge(both_ways(("a", "b"), ("b", "c")))
    labels = fresh(["a", "b", "c"], 3, mask=torch.tensor([[True, False, True]])).labels
    assert labels.tolist() == [[0, 1, 2]]
    assert set(planted.asked) == both_ways(("a", "c"))


def test_a_probability_that_is_not_finite_entails_nothing():
    meanings, planted = judge(both_ways(("a", "b"), ("b", "c")))
    planted.broken_by = "b"
    labels, similarity = meanings(["a", "b", "c"], 3)
    assert labels.tolist() == [[0, 1, 2]]
    assert similarity[0, 1].tolist() == [0, 1, 0]


def test_no_texts_have_no_meanings():
    labels, similarity = judge(())[0]([], 3)
    assert labels.shape == (0, 3)
    assert similarity.shape == (0, 3, 3)


def test_what_is_wrong_is_said():
    planted = Planted(())
    with pytest.raises(ValueError, match="needs its tokenizer, found only a Planted"):
        BidirectionalEntailment(planted)
    planted.config = SimpleNamespace(id2label={0: "LABEL_0", 1: "LABEL_1"})
    with pytest.raises(ValueError, match="begins with 'entail', found 'LABEL_0', 'LABEL_1'"):
        BidirectionalEntailment(planted, planted)
    meanings, _ = judge(())
    with pytest.raises(ValueError, match="texts must come in groups of 2, found 3"):
        meanings(["a", "b", "c"], 2)
    with pytest.raises(ValueError, match="contexts must be one a group, found 1 for 2 groups"):
        meanings(["a", "b", "c", "d"], 2, contexts=["q"])


def test_a_missing_library_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r'pip install "gcpo\[trl\]"'):
        BidirectionalEntailment("some/model")
