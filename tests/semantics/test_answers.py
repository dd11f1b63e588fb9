"""Final answers and meanings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpo.semantics import answer_labels, extract_answer, fold


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("37+25=62\n62-18=44\n#44", "44"),
        ("7*2=14\n14+5=19\n#7*2+5", "7*2+5"),
        ("She sold 24 in May.\n#### 72", "72"),
        ("#### 1,234 \n", "1,234"),
        ("# Solution\nThe total is 12 apples.", "12"),
        ("### Step 1\nso x = -3.5.", "-3.5"),
        (r"Thus \boxed{\frac{1}{2}} follows from 3.", r"\frac{1}{2}"),
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (r"never closed \boxed{1", "1"),
        ("<answer> Paris </answer>", "Paris"),
        ("10 or 12, I say 12,", "12"),
        ("The answer is 3/4.", "3/4"),
        ("the answer is \u22125", "-5"),
        ("The result is .5", ".5"),
        ("between 2-3", "3"),
        ("It is 1.5e6", "1.5e6"),
        ("so 7 - 12 = -5", "-5"),
        ("#3 first\n<answer>7</answer>", "7"),
        ("```python\n#comment\n```\n8", "8"),
        ("**Answer:** 72\n\n#1 tip: check", "1 tip: check"),
        ("#### **72**", "72"),
        ("no idea", None),
        ("", None),
    ],
)
def test_final_answer(response, answer):
    assert extract_answer(response) == answer


@given(st.text())
def test_any_text_has_an_answer_or_none(text):
    answer = extract_answer(text)
    assert answer is None or isinstance(answer, str)


def test_fold_forgets_what_changes_no_meaning():
    assert fold(" 1,234. ") == fold("1234")
    assert fold("New York") == fold("new  york")
    assert fold("1,2") != fold("12")
    assert fold("7 2") != fold("72")
    assert fold("(1,234)") != fold("(1234)")
    assert fold("x + 1") == fold("x+1")


def test_equal_answers_share_a_label_within_their_group_only():
    labels = answer_labels(["44", " 44.", "45", "44", "45", "45"], 3)
    assert labels[0, 0] == labels[0, 1] != labels[0, 2]
    assert not set(labels[0].tolist()) & set(labels[1].tolist())


def test_a_missing_answer_stands_alone():
    assert answer_labels([None, None, "1", "1"], 4).unique().numel() == 3


def test_answers_must_fill_their_groups():
    with pytest.raises(ValueError, match="answers must come in groups of 4, found 3"):
        answer_labels(["1", "2", "3"], 4)
