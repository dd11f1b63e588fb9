"""Tokens are split into the same steps as texts are."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcpo.semantics import STEPS, split_steps
from gcpo.semantics.step_ends import StepEnds
from tests import tiny

WORDS = [
    "",
    "He",
    " has",
    " 3.14",
    " m.",
    " She",
    " went",
    " home",
    ".",
    "\n",
    ".\n",
    " Dr.",
    " J",
    "!",
    ' "No."',
    " 2.",
    "\n\n",
]
"""By their ids; 0 is a special token."""


class Pieces:
    """A tokenizer of whole words which, like SentencePiece, drops the space before the first."""

    def decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return "".join(WORDS[i] for i in ids).removeprefix(" ")


def steps_of(ids, by, room=0):
    """The texts between the ends that tokens have."""
    row = torch.tensor([[*ids, *[5] * room]])
    mask = torch.arange(row.shape[1]).unsqueeze(0) < len(ids)
    ends = StepEnds(Pieces(), by)(row, mask)[0, : len(ids)].tolist()
    texts = [""]
    for token, end in zip(ids, ends, strict=True):
        texts[-1] += WORDS[token]
        texts += [""] if end else []
    return [text.strip() for text in texts if text.strip()]


@given(st.lists(st.integers(0, len(WORDS) - 1), min_size=1, max_size=24), st.sampled_from(STEPS), st.integers(0, 3))
def test_tokens_have_the_steps_of_their_text(ids, by, room):
    text = "".join(WORDS[i] for i in ids)
    assert steps_of(ids, by, room) == [step.strip() for step in split_steps(text, 64, by)]


def test_a_stop_within_a_number_or_an_abbreviation_ends_nothing():
    ids = [WORDS.index(w) for w in ("He", " has", " 3.14", " m.", " Dr.", " J", ".", " She", " went", " home", "!")]
    assert steps_of(ids, "auto") == ["He has 3.14 m.", "Dr. J. She went home!"]


def test_a_line_break_ends_a_line():
    tokens = tiny.tokenizer()
    ids = torch.tensor([tokens("1\n2").input_ids])
    for by in STEPS:
        assert StepEnds(tokens, by)(ids, torch.ones_like(ids).bool()).tolist() == [[False, True, False]]


def test_steps_of_another_kind_are_refused():
    for use in (lambda: StepEnds(Pieces(), "words"), lambda: split_steps("a", 2, "words")):
        with pytest.raises(ValueError, match="steps must be auto, lines or sentences, found 'words'"):
            use()
