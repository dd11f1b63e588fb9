"""From a response to its final answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpo.semantics import extract_answer, fold


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
        (r"The answer is: $\boxed{7}$", "7"),
        ("<answer> Paris </answer>", "Paris"),
        ("<answer>**42**</answer>", "42"),
        ("<answer>1</answer> or <answer>2</answer> </answer> <answer>3", "2"),
        ("<answer><answer>7</ANSWER>", "<answer>7"),
        ("10 or 12, I say 12,", "12"),
        ("The answer is 3/4.", "3/4"),
        ("The answer is **42**.", "42"),
        ("the answer is \u22125", "-5"),
        ("The result is .5", ".5"),
        ("between 2-3", "3"),
        ("It is 1.5e6", "1.5e6"),
        ("so 7 - 12 = -5", "-5"),
        ("It costs $5,000.", "5,000"),
        ("She lost -$500", "-500"),
        ("10-$5", "5"),
        ("That makes 12%", "12"),
        ("#3 first\n<answer>7</answer>", "7"),
        ("```python\n#comment\n```\n8", "8"),
        ("**Answer:** 72\n\n#1 tip: check", "1 tip: check"),
        ("#### **72**", "72"),
        (r"Final Answer: The final answer is $\frac{1}{2}$. I hope it is correct.", r"\frac{1}{2}"),
        (r"The answer is \(x^2\), since 3 > 2.", "x^2"),
        ("The answer is $5,000 and not $4,000.", "4,000"),
        ("5 > 3, so the answer is yes.", "yes"),
        ("There are 2.\n**Answer:** no", "no"),
        ("Answer:\nNew York\n", "New York"),
        ("The answer is (B).", "(B)"),
        ("The answer is the sum.\n3+4=7", "7"),
        ("The answer is 3 + 4 = 7", "7"),
        ("Answer:", None),
        ("no idea", None),
        ("", None),
    ],
)
def test_final_answer(response, answer):
    assert extract_answer(response) == answer


@given(st.text() | st.text("answer is:$\\(){}#1-\n "))
def test_any_text_has_an_answer_or_none(text):
    answer = extract_answer(text)
    assert answer is None or isinstance(answer, str)


@given(
    st.integers(-(10**9), 10**9), st.sampled_from(["#### {}", "The answer is {:,}.", r"so \boxed{{{}}}", "x = ${}$"])
)
def test_a_number_is_found_again(number, template):
    assert fold(extract_answer(template.format(number))) == str(number)


def test_fold_forgets_what_changes_no_meaning():
    assert fold(" 1,234. ") == fold("1234")
    assert fold("New York") == fold("new  york")
    assert fold("1,2") != fold("12")
    assert fold("7 2") != fold("72")
    assert fold("(1,234)") != fold("(1234)")
    assert fold("x + 1") == fold("x+1")
