"""Whatever a user writes on the command line, in a configuration or in a data file: it works or is a sentence."""

import json
import os

import pytest
import yaml
from accelerate.state import AcceleratorState
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gcpo.experiment.resolve import own, resolve
from gcpo.experiment.settings import ProbeSettings, TrainSettings, UsageError
from gcpo.experiment.train import build_config, build_task
from gcpo.integrations.trl_config import GCPOConfig
from gcpo.tasks import get_task


@pytest.fixture(scope="module", autouse=True)
def _hosts_forget():
    """Hosts keep what a configuration said in the environment and in states of the process."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
    AcceleratorState._reset_state(reset_partial_state=True)


HOST = sorted(GCPOConfig.__dataclass_fields__)
KEYS = st.sampled_from([*own(TrainSettings), "trainer", *HOST]) | st.text(max_size=8)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN, inner, max_size=3), max_leaves=4
)


def works_or_is_a_sentence(work, *arguments, naming="", **given):
    """Any other exception than UsageError gets through and fails the test."""
    said = None
    try:
        return work(*arguments, **given)
    except UsageError as error:
        said = str(error)
    assert said.strip()
    assert naming in said
    return None


def configured(directory, **given):
    return build_config(resolve(TrainSettings, {}, **given), get_task("chain"), directory)


@settings(max_examples=300)
@given(st.lists(st.tuples(KEYS, PLAIN.map(str) | VALUES.map(repr)), max_size=3))
@example([("max_steps", "[1, 2]")])
@example([("learning_rate", "{a: 1}")])
@example([("seed", "!!python/object:os.system [ls]")])
def test_any_words_of_the_command_line(tmp_path_factory, words):
    works_or_is_a_sentence(
        configured, tmp_path_factory.getbasetemp(), overrides=[f"{key}={value}" for key, value in words]
    )


@settings(max_examples=200)
@given(st.text(max_size=30))
def test_any_word_that_is_no_key_and_value(tmp_path_factory, word):
    works_or_is_a_sentence(configured, tmp_path_factory.getbasetemp(), overrides=[word])


@settings(max_examples=300)
@given(st.dictionaries(KEYS, VALUES, max_size=3).map(lambda d: yaml.safe_dump(d).encode()) | st.binary(max_size=40))
@example(b"trainer: {null: false}")
@example(b"seed: 2001-99-99")
@example(b"[" * 1500)
def test_any_configuration_file(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    file.write_bytes(content)
    works_or_is_a_sentence(configured, tmp_path_factory.getbasetemp(), config=file)
    works_or_is_a_sentence(resolve, ProbeSettings, {}, config=file)


ROW = st.dictionaries(st.sampled_from(["prompt", "answer", "id"]), VALUES, max_size=3).map(json.dumps)


@settings(max_examples=300)
@given(st.lists(ROW | st.text(max_size=12), max_size=5).map("\n".join).map(str.encode) | st.binary(max_size=60))
@example(b'{"prompt": "' + b"[" * 5000 + b'", "answer": "1"}')
@example(b"[" * 100_000)
@example(b'{"prompt": "p", "answer": ' + b"9" * 5000 + b"}")
def test_any_data_file(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "fuzz.jsonl"
    file.write_bytes(content)
    works_or_is_a_sentence(build_task, TrainSettings(data=str(file)), naming=file.name)
