"""Flags, files and overrides become one record; wrong words are answered in a sentence."""

import pytest
import yaml

from gcpo.experiment.resolve import resolve, suggest
from gcpo.experiment.settings import ProbeSettings, TrainSettings, UsageError


def test_defaults_are_the_quickstart():
    settings = resolve(TrainSettings, {})
    assert (settings.recipe, settings.model, settings.data) == ("gcpo", "starter", None)


def test_later_sources_win(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({"seed": 1, "recipe": "grpo", "max_steps": 5, "trainer": {"beta": 0.1}}))
    settings = resolve(
        TrainSettings, {"recipe": "rloo", "seed": None}, config, ["max_steps=7", "eval_prompts=64", "chat=true"]
    )
    assert (settings.recipe, settings.seed, settings.eval_prompts, settings.chat) == ("rloo", 1, 64, True)
    assert settings.trainer == {"beta": 0.1, "max_steps": 7}


def test_nothing_is_not_given_and_own_settings_may_stand_under_trainer(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("trainer: {recipe: grpo, seed: 5, max_steps: 3}\nrecipe: gcpo-cd\nmodel: null\n")
    settings = resolve(TrainSettings, {}, config)
    assert (settings.recipe, settings.seed, settings.model) == ("gcpo-cd", 5, "starter")
    assert settings.trainer == {"max_steps": 3}
    config.write_text("trainer:\nseed:\n")
    assert resolve(TrainSettings, {}, config) == TrainSettings()


def test_words_and_files_say_the_same(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("max_steps: 30\nlearning_rate: 3e-4\ngcpo_log_signals: [semantic_entropy]\n")
    words = ["max_steps=30", "learning_rate=3e-4", "gcpo_log_signals=[semantic_entropy]"]
    assert resolve(TrainSettings, {}, config) == resolve(TrainSettings, {}, None, words)


def test_a_runs_own_configuration_can_be_given_again(tmp_path):
    settings = resolve(TrainSettings, {"seed": 3}, None, ["learning_rate=3e-4"])
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"command": "train", **settings.as_dict(), "versions": {"torch": "2"}}))
    assert resolve(TrainSettings, {}, config) == settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"overrides": ["max_steps"]}, "overrides are written key=value, found 'max_steps'"),
        ({"overrides": ["=3"]}, "overrides are written key=value"),
        ({"overrides": ["seed=x"]}, "seed must be a whole number, found 'x'"),
        ({"overrides": ["eval_prompts=0"]}, "eval_prompts must be at least 1, found 0"),
        ({"overrides": ["chat=maybe"]}, "chat must be true or false, found 'maybe'"),
        ({"overrides": ["seed=1.7"]}, "seed must be a whole number, found 1.7"),
        ({"overrides": ["eval_prompts=true"]}, "eval_prompts must be a whole number, found True"),
        ({"overrides": ["trainer=5"]}, "trainer must map fields of GCPOConfig to values, found 5"),
        ({"overrides": ["recipe=[a]"]}, "recipe must be text"),
        ({"flags": {"data": "nowhere.jsonl"}}, "data must be a file, found nothing at nowhere.jsonl"),
    ],
)
def test_wrong_words_are_named(given, message):
    with pytest.raises(UsageError, match=message):
        resolve(TrainSettings, given.get("flags", {}), None, given.get("overrides", ()))


@pytest.mark.parametrize(("text", "message"), [("- 1\n- 2\n", "must map settings"), ("{", "cannot be read")])
def test_a_bad_file_is_named(tmp_path, text, message):
    config = tmp_path / "c.yaml"
    config.write_text(text)
    with pytest.raises(UsageError, match=message):
        resolve(TrainSettings, {}, config)
    with pytest.raises(UsageError, match="cannot be read"):
        resolve(TrainSettings, {}, tmp_path / "absent.yaml")


def test_a_close_word_is_suggested():
    assert suggest("max_step", ["max_steps", "beta"]) == "; did you mean 'max_steps'?"
    assert suggest("xyz", ["max_steps"]) == ""


def test_settings_are_plain_values():
    assert yaml.safe_load(yaml.safe_dump(TrainSettings().as_dict())) == TrainSettings().as_dict()


def test_null_takes_back_what_the_file_says(tmp_path):
    (tmp_path / "c.yaml").write_text("few_shot: 2\nlearning_rate: 3.0e-4\n")
    assert resolve(TrainSettings, {}, tmp_path / "c.yaml", ["few_shot=null", "learning_rate=null"]) == TrainSettings()


def test_a_power_of_ten_needs_no_point():
    assert resolve(TrainSettings, {}, overrides=["reward_noise=1e-1"]).reward_noise == 0.1
    assert resolve(ProbeSettings, {}, overrides=["flip=0,1e-1"]).flip == [0.0, 0.1]
