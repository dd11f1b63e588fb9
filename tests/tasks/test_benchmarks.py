"""The published formats, by small files written for the test in the layout of each."""

import json
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest

from gcpo.experiment.settings import TrainSettings, UsageError
from gcpo.experiment.subject import build_task, draw
from gcpo.tasks.benchmarks import BENCHMARKS
from gcpo.tasks.sources import Source

MATH500 = {
    "problem": "What is $\\frac{1}{4}+\\frac{1}{4}$?",
    "solution": "The sum is $\\boxed{\\frac{1}{2}}$.",
    "answer": "\\frac{1}{2}",
    "subject": "Prealgebra",
    "level": 1,
    "unique_id": "test/prealgebra/1.json",
}
AIME = {"id": 60, "problem": "Find $m+n$.", "solution": "\\boxed{33}", "answer": "033", "url": "", "year": "2024"}
AIME_CAPITALS = {"ID": "2024-II-4", "Problem": "Find $m+n$.", "Solution": "So 33.", "Answer": 33}
OLYMPIAD = {
    "id": 1606,
    "question": "Determine all $x$ with $2x=1$.",
    "solution": ["Divide by 2.", "Or guess."],
    "final_answer": ["$\\frac{1}{2}$"],
    "context": None,
    "image_1": None,
    "modality": "Text-only",
    "difficulty": "Competition",
    "is_multiple_answer": False,
    "unit": None,
    "answer_type": "Numerical",
    "error": None,
    "question_type": "Open-ended",
    "subfield": "Algebra",
    "subject": "Math",
    "language": "English",
}
NARRATIVE = {
    "document": {"id": "x", "kind": "movie", "summary": {"text": "Ann went home.", "tokens": ["Ann"]}, "text": "..."},
    "question": {"text": "Where did Ann go?", "tokens": ["Where"]},
    "answers": [{"text": "She went home.", "tokens": []}, {"text": "Home", "tokens": []}],
}


def qasper_answer(**said):
    nothing = {"unanswerable": False, "extractive_spans": [], "yes_no": None, "free_form_answer": "", "evidence": []}
    return {"answer": nothing | said, "annotation_id": "a", "worker_id": "w"}


PAPER = {
    "title": "On parsing",
    "abstract": "We parse.",
    "full_text": [{"section_name": "Data", "paragraphs": ["We use PTB.", "And more."]}],
    "qas": [
        {"question": "Which data?", "question_id": "1", "answers": [qasper_answer(extractive_spans=["PTB", "more"])]},
        {
            "question": "Is it good?",
            "question_id": "2",
            "answers": [
                qasper_answer(yes_no=True),
                qasper_answer(yes_no=False),
                qasper_answer(free_form_answer="Fairly"),
            ],
        },
        {"question": "Who paid?", "question_id": "3", "answers": [qasper_answer(unanswerable=True)]},
    ],
}


def only(task):
    (example,) = task.examples("test", 1, 0)
    return example


def built(tmp_path, name, content, file="rows.jsonl"):
    path = tmp_path / file
    path.write_text("".join(json.dumps(c) + "\n" for c in content) if file.endswith("l") else json.dumps(content))
    return build_task(TrainSettings(task=name, data=str(path)))


def test_math_500(tmp_path):
    task = built(tmp_path, "math-500", [MATH500])
    example = only(task)
    assert example.answer == "\\frac{1}{2}"
    assert example.prompt.startswith(MATH500["problem"])
    assert example.prompt.endswith("\\boxed{}.")
    assert task.grade(example.solution, example) == task.grade("\\boxed{0.5}", example) == 1.0
    assert task.grade("\\boxed{2}", example) == 0.0
    with pytest.raises(UsageError, match="math-500 has no prompts for the split 'train': give data for it"):
        draw(task, "train", None, 0)


@pytest.mark.parametrize("row", [AIME, AIME_CAPITALS])
def test_aime(tmp_path, row):
    task = built(tmp_path, "aime24", [row])
    assert only(task).answer == "33"
    assert task.grade("\\boxed{033}", only(task)) == 1.0


def test_olympiadbench(tmp_path):
    task = built(
        tmp_path, "olympiadbench", [OLYMPIAD, OLYMPIAD | {"question": "$x$?", "context": "Let $2x=1$."}], "d.json"
    )
    first, second = sorted(task.examples("test", 2, 0), key=lambda e: -len(e.prompt))
    assert first.solution == "Divide by 2.\nOr guess."
    assert second.prompt.startswith("Let $2x=1$.\n$x$?")
    assert task.grade("so $x=\\boxed{0.5}$", first) == 1.0


def test_gsm8k_has_both_splits(tmp_path):
    rows = [{"question": f"{i} apples?", "answer": f"<<{i}={i}>>\n#### {i}"} for i in range(20)]
    for name, part in (("train", rows[:15]), ("test", rows[15:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in part))
    files = {"data": str(tmp_path / "train.jsonl"), "test_data": str(tmp_path / "test.jsonl")}
    task = build_task(TrainSettings(task="gsm8k", **files))
    assert (task.count("train"), task.count("test")) == (15, 5)
    alone = build_task(TrainSettings(task="gsm8k", data=files["data"], held_out=0.4))
    assert (alone.count("train"), alone.count("test")) == (9, 6)


def test_narrativeqa_from_parquet_as_on_the_hub(tmp_path):
    path = tmp_path / "test-00000-of-00001.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([NARRATIVE]), path)
    task = build_task(TrainSettings(task="narrativeqa", test_data=str(path)))
    example = only(task)
    assert example.prompt == "Ann went home.\n\nWhere did Ann go? Answer in a few words."
    assert example.answers == ("She went home.", "Home")
    assert task.grade("Home.", example) == 1.0
    assert task.grade("home she went", example) == pytest.approx(2 / 3)


def check_qasper(task):
    examples = {e.row["question"]: e for e in task.examples("test", 3, 0)}
    assert examples["Which data?"].answers == ("PTB, more",)
    assert examples["Is it good?"].answers == ("Yes", "No", "Fairly")
    assert examples["Who paid?"].answers == ("Unanswerable",)
    assert "Data\n\nWe use PTB.\n\nAnd more.\n\nWhich data? Answer" in examples["Which data?"].prompt
    assert task.grade("PTB", examples["Which data?"]) == pytest.approx(2 / 3)


def test_qasper_from_its_release_file(tmp_path):
    path = tmp_path / "qasper-test-v0.3.json"
    path.write_text(json.dumps({"1909.00694": PAPER}))
    check_qasper(build_task(TrainSettings(task="qasper", test_data=str(path))))


def test_qasper_as_the_hub_library_gives_it(tmp_path):
    """There a sequence of objects is an object of sequences."""
    turned = {name: [q[name] for q in PAPER["qas"]] for name in ("question", "question_id")}
    turned["answers"] = [
        {name: [a[name] for a in q["answers"]] for name in ("answer", "annotation_id")} for q in PAPER["qas"]
    ]
    sections = {name: [s[name] for s in PAPER["full_text"]] for name in ("section_name", "paragraphs")}
    path = tmp_path / "test.parquet"
    table = pyarrow.Table.from_pylist([PAPER | {"qas": turned, "full_text": sections, "id": "1909.00694"}])
    pyarrow.parquet.write_table(table, path)
    check_qasper(build_task(TrainSettings(task="qasper", test_data=str(path))))


def test_a_row_of_another_format_is_named(tmp_path):
    with pytest.raises(UsageError, match="line 1: no field 'problem', found 'prompt'"):
        built(tmp_path, "math-500", [{"prompt": "?", "answer": "1"}])
    with pytest.raises(UsageError, match="line 1: field 'document' must be an object, found NoneType"):
        built(tmp_path, "narrativeqa", [{"prompt": "?"}])
    with pytest.raises(UsageError, match="line 1: a list of objects is missing, found NoneType"):
        built(tmp_path, "qasper", [{"prompt": "?"}])


PUBLISHED = {
    "gsm8k": ("openai/gsm8k", "main", "test", {"question": "?", "answer": "#### 3"}),
    "math-500": ("HuggingFaceH4/MATH-500", None, "test", MATH500),
    "aime24": ("HuggingFaceH4/aime_2024", None, "train", AIME),
    "olympiadbench": ("Hothan/OlympiadBench", "OE_TO_maths_en_COMP", "train", OLYMPIAD),
    "narrativeqa": ("deepmind/narrativeqa", None, "test", NARRATIVE),
    "qasper": ("allenai/qasper", None, "test", PAPER),
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_without_a_file_they_come_from_the_hub(monkeypatch, name):
    datasets = pytest.importorskip("datasets")
    place, config, split, row = PUBLISHED[name]
    asked = []

    class Builder:
        """Of a data set of one row on the hub."""

        def __init__(self, place, name, revision):
            self.asked, self.config = (place, name), SimpleNamespace(data_files=None)

        def download_and_prepare(self):
            pass

        def as_dataset(self, split):
            asked.append((*self.asked, split))
            text = json.dumps(row)
            first = split == "train" and len(asked) == 1
            return datasets.Dataset.from_list([json.loads(text.replace("?", "!") if first else text)])

    monkeypatch.setattr("datasets.load_dataset_builder", Builder)
    task = build_task(TrainSettings(task=name))
    assert task.examples("test", 1, 0)
    assert asked[-1] == (place, config, split)
    assert len(asked) == (1 if BENCHMARKS[name].train is None else 2)


def test_a_mirror_and_its_splits_may_be_named():
    gsm8k, aime = BENCHMARKS["gsm8k"], BENCHMARKS["aime24"]
    assert gsm8k.sources("a/b", "a/b", "socratic", "dev", None) == (
        Source("a/b", "socratic", "dev"),
        Source("a/b", "socratic", "test"),
    )
    assert gsm8k.sources("a/b") == (Source("a/b", "main", "train"), None), "divided"
    assert gsm8k.sources(test="a/b") == (None, Source("a/b", "main", "test"))
    assert aime.sources("Maxwell-Jia/AIME_2024") == (None, Source("Maxwell-Jia/AIME_2024", None, "train"))
    assert aime.sources() == (None, aime.test)
    assert BENCHMARKS["qasper"].sources("a/b", "c/d")[1] == Source("c/d", None, "test", None)


def test_qasper_in_the_layout_of_its_parquet_branch(tmp_path):
    for split, paper in (("train", PAPER | {"title": "Other"}), ("test", PAPER)):
        (tmp_path / "qasper" / split).mkdir(parents=True)
        table = pyarrow.Table.from_pylist([paper])
        pyarrow.parquet.write_table(table, tmp_path / "qasper" / split / "0000.parquet")
    check_qasper(build_task(TrainSettings(task="qasper", data=str(tmp_path), test_data=str(tmp_path))))
