"""Rows of a file as a task: what is read, what is refused, what is right."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpo.tasks import Example
from gcpo.tasks.data import DataTask
from gcpo.tasks.fields import Fields
from gcpo.tasks.rewards import parse
from gcpo.tasks.sources import RowError, Source

GSM8K = [
    {"question": f"Tom has {i} apples and buys {i} more. How many?", "answer": f"{i}+{i}={2 * i}\n#### {2 * i}"}
    for i in range(1, 31)
]


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_gsm8k_rows_give_their_marked_answers(tmp_path):
    task = DataTask(write(tmp_path / "d.jsonl", GSM8K), Fields("question"))
    examples = task.examples("train", 27, seed=0) + task.examples("test", 3, seed=0)
    assert {e.prompt: e.answer for e in examples} == {r["question"]: r["answer"].split()[-1] for r in GSM8K}
    assert all(task.grade(e.solution, e) == 1.0 for e in examples)


def test_splits_share_no_prompt_and_do_not_depend_on_the_order_of_rows(tmp_path):
    task = DataTask(write(tmp_path / "a.jsonl", GSM8K + GSM8K[:4]), Fields("question"))
    turned = DataTask(write(tmp_path / "b.jsonl", GSM8K[::-1]), Fields("question"))
    prompts = {s: {e.prompt for e in task.examples(s, task.count(s), 0)} for s in ("train", "test")}
    assert not prompts["train"] & prompts["test"]
    assert len(prompts["train"]) + len(prompts["test"]) == 30
    assert task.repeated == 4
    assert {e.prompt for e in turned.examples("test", 3, 5)} == prompts["test"]


@pytest.mark.parametrize(
    ("gold", "response", "grade"),
    [
        ("72", "so the answer is 72.", 1),
        ("72", "#### 72", 1),
        ("72", r"\boxed{72.0}", 1),
        ("72", "72 or rather 73", 0),
        ("72", "", 0),
        ("72", "none", 0),
        (r"\frac{1}{2}", r"\boxed{0.5}", 1),
        (r"\frac{1}{2}", r"\boxed{\dfrac{2}{4}}", 1),
        (r"\frac{1}{2}", r"\boxed{2}", 0),
        ("Paris", "<answer>paris</answer>", 1),
        ("Paris", "<answer>London</answer>", 0),
        ("1,234", "it is 1234", 1),
        ("4", "The answer is 3/4.", 0),
        ("3/4", "The answer is 3/4.", 1),
        ("-5", "the answer is \u22125", 1),
        ("5", "the answer is \u22125", 0),
        ("0.5", "The result is .5", 1),
        ("1500000", "It is 1.5e6", 1),
        ("72", "#### 7 2", 0),
        (0.00005, "#### 0.00005", 1),
        (1e16, "10000000000000000", 1),
    ],
)
def test_grades(tmp_path, gold, response, grade):
    task = DataTask(write(tmp_path / "d.jsonl", [{"prompt": "a", "answer": gold}, {"prompt": "b", "answer": gold}]))
    assert task.grade(response, task.examples("train", 1, 0)[0]) == grade


@given(st.text(max_size=60))
def test_grading_raises_on_no_response(response):
    example = Example("p", "72", "72")
    assert all(parse([name])(response, example) in (0.0, 1.0) for name in ("math", "numeric", "exact"))


def test_malformed_rows_are_named_by_line_and_reason(tmp_path):
    rows = [
        {"prompt": "a", "answer": "1"},
        "{not json",
        "[1]",
        {"prompt": "b"},
        {"prompt": "", "answer": "1"},
        {"prompt": 3, "answer": "1"},
        {"prompt": "c", "answer": None},
        {"prompt": "d", "answer": "####"},
    ]
    with pytest.raises(ValueError, match="7 malformed rows") as error:
        DataTask(write(tmp_path / "d.jsonl", rows))
    text = str(error.value)
    assert "line 2: not JSON" in text
    assert "line 3: not an object but list" in text
    assert "line 4: no field 'answer', found 'prompt'" in text
    assert "line 5: field 'prompt' is empty" in text
    assert "line 6: field 'prompt' must be text, found int" in text
    assert "and 2 more" in text


def test_bytes_that_are_no_text_are_named(tmp_path):
    file = tmp_path / "d.jsonl"
    file.write_bytes(b'{"prompt": "a", "answer": "1"}\n{"prompt": "\xff", "answer": "1"}\n')
    with pytest.raises(ValueError, match="line 2: not UTF-8"):
        DataTask(file)


@pytest.mark.parametrize("number", ["NaN", "1e400"])
def test_an_answer_must_be_finite(tmp_path, number):
    file = write(tmp_path / "d.jsonl", [f'{{"prompt": "a", "answer": {number}}}'])
    with pytest.raises(ValueError, match="line 1: the answer must be a finite number"):
        DataTask(file)


def test_one_prompt_is_too_few(tmp_path):
    with pytest.raises(ValueError, match="at least two prompts, found 1"):
        DataTask(write(tmp_path / "d.jsonl", [{"prompt": "a", "answer": 1}]))


def test_rows_to_test_on_may_be_given_and_must_not_be_among_those_to_train_on(tmp_path):
    train = write(tmp_path / "train.jsonl", GSM8K[:20])
    test = write(tmp_path / "test.jsonl", GSM8K[20:])
    task = DataTask(train, Fields("question"), test=Source(str(test)))
    assert (task.count("train"), task.count("test")) == (20, 10)
    both = write(tmp_path / "both.jsonl", GSM8K[19:])
    with pytest.raises(
        ValueError, match="train and test must share no prompt, found 1 in both, the first 'Tom has 20"
    ):
        DataTask(train, Fields("question"), test=Source(str(both)))


def test_the_seed_and_the_share_decide_what_is_held_out(tmp_path):
    path = write(tmp_path / "d.jsonl", GSM8K)
    held = [
        {e.prompt for e in task.examples("test", task.count("test"), 0)}
        for task in (DataTask(path, Fields("question"), held_out=0.5, split_seed=seed) for seed in (0, 0, 1))
    ]
    assert len(held[0]) == 15
    assert held[0] == held[1] != held[2]


CHOICE = {"question": "Where is the Louvre?", "options": ["Rome", "Paris", "Oslo"]}


@pytest.mark.parametrize("answer", ["B", "Paris", 1, "1"])
def test_the_right_option_may_be_named_in_any_way(answer):
    example = Fields("question", "answer", choices="options").example(CHOICE | {"answer": answer})
    assert example.prompt == "Where is the Louvre?\nA. Rome\nB. Paris\nC. Oslo"
    assert example.answer == example.solution == "B"


def test_options_as_arc_has_them():
    row = {"question": "?", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}
    assert Fields("question", "answerKey", choices="choices").example(row).answer == "B"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (CHOICE | {"answer": "D"}, "the answer 'D' is none of the options in field 'options'"),
        (CHOICE | {"answer": "A", "options": ["one"]}, "field 'options' must be a list of 2 to 26 options"),
        (CHOICE | {"answer": "A", "options": "one"}, "field 'options' must be a list of 2 to 26 options"),
        (CHOICE | {"answer": []}, "field 'answer' is empty"),
    ],
)
def test_options_that_do_not_fit_are_named(row, message):
    with pytest.raises(ValueError, match=message):
        Fields("question", "answer", choices="options").example(row)


def test_a_template_words_the_prompt_and_leaves_latex_alone():
    fields = Fields("q", "a", template="{topic}: {q}\nUse \\boxed{}, \\frac{1}{2} and {{a}}.")
    example = fields.example({"q": "1+1?", "a": "2", "topic": "Sums"})
    assert example.prompt == "Sums: 1+1?\nUse \\boxed{}, \\frac{1}{2} and {a}."
    with pytest.raises(ValueError, match="no field 'topic', found 'q', 'a'"):
        fields.example({"q": "1+1?", "a": "2"})
    with pytest.raises(ValueError, match=r"must not tell the answer, found the field \{a\}"):
        Fields("q", "a", template="{q} \\boxed{a}")


def test_several_answers_are_all_right():
    example = Fields().example({"prompt": "?", "answer": ["the mill", "mill", 7.0]})
    assert example.answers == ("the mill", "mill", "7.0")


def test_a_solution_of_its_own_field_keeps_the_answer():
    example = Fields(solution="work").example({"prompt": "?", "answer": "2", "work": "1+1=2\n#### 2"})
    assert (example.answer, example.solution) == ("2", "1+1=2\n#### 2")


@pytest.mark.parametrize(
    ("choices", "answer", "letter"),
    [
        (["8", "2", "24", "120"], 2, "C"),
        (["1", "2", "3", "4"], 2, "C"),
        (["8", "2", "24", "120"], 120, "D"),
        ([8, 2, 24, 120], 24, "C"),
        (["red", "blue"], "1", "B"),
        (["red", "blue"], "blue", "B"),
    ],
)
def test_a_number_beside_options_that_are_texts_is_a_place(choices, answer, letter):
    row = {"question": "?", "choices": choices, "answer": answer}
    assert Fields("question", choices="choices").example(row).answer == letter


@pytest.mark.parametrize("choices", [["8", "2", "24", "120"], [8, 2, 24, 120]])
def test_an_answer_that_may_be_an_option_or_the_place_of_another_is_refused(choices):
    row = {"question": "?", "choices": choices, "answer": "2" if isinstance(choices[0], str) else 2}
    with pytest.raises(RowError, match="the answer '2' may be option B or the place of C: give the letter"):
        Fields("question", choices="choices").example(row)


def test_another_wording_holds_out_the_same_questions(tmp_path):
    (tmp_path / "d.jsonl").write_text("\n".join(f'{{"prompt": "What is {i}?", "answer": "{i}"}}' for i in range(60)))
    kept = [DataTask(tmp_path / "d.jsonl", Fields(template=t)) for t in (None, "{prompt} Think.", "Q: {prompt}\nA:")]
    asked = [{e.row["prompt"] for e in task.examples("test", 6, 0)} for task in kept]
    assert asked[0] == asked[1] == asked[2]


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path):
    rows = [{"prompt": "a", "answer": "1"}, {"prompt": "b", "answer": "2"}]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8-sig")
    (tmp_path / "d.json").write_text(json.dumps(rows), encoding="utf-8-sig")
    for name in ("d.jsonl", "d.json"):
        assert DataTask(tmp_path / name).count("train") == 1


def test_half_an_emoji_is_named_by_its_line(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"prompt": "a", "answer": "1"}\n{"prompt": "bad \\ud83d", "answer": "2"}\n')
    with pytest.raises(ValueError, match=r"line 2: field 'prompt' holds half of a character"):
        DataTask(tmp_path / "d.jsonl")
