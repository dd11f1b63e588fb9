"""The command line answers at once, says what is wrong, and keeps its contract with scripts."""

import json
import subprocess
import sys

import pytest

from gcpo.cli import main


def python(code, **given):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **given)


def test_help_imports_no_torch():
    code = "import sys; from gcpo.cli import _parser; _parser().format_help(); assert 'torch' not in sys.modules"
    assert python(code).returncode == 0


def test_importing_gcpo_imports_nothing_heavy_and_its_core_no_host():
    assert python("import sys, gcpo; assert 'torch' not in sys.modules").returncode == 0
    code = "import sys; from gcpo import signals, recipe; assert not {'transformers', 'trl', 'ot'} & set(sys.modules)"
    assert python(code).returncode == 0


def test_public_names():
    import gcpo

    for name in gcpo.__all__:
        assert getattr(gcpo, name) is not None
    assert gcpo.signals.cosine_dispersion
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = gcpo.absent


@pytest.mark.parametrize(
    "command", [[], ["train"], ["sft"], ["eval"], ["probe"], ["bench"], ["report"], ["list"], ["doctor"]]
)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    assert end.value.code == 0
    assert "usage: gcpo" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["trian"], ["train", "--recip", "x", "--nonsense"], ["list", "nothing"]])
def test_wrong_usage_exits_with_two(argv):
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2


def test_list_names_everything_with_its_reference(capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name in (
        "semantic_entropy",
        "gcpo-bot",
        "countdown",
        "stories",
        "math-500",
        "token-f1",
        "starter",
        "smollm2",
        "arXiv 2605.21801, reconstructed",
    ):
        assert name in text


def test_list_as_json(capsys):
    assert main(["list", "recipes", "--json"]) == 0
    recipes = json.loads(capsys.readouterr().out)["recipes"]
    assert {"grpo", "dr-grpo", "rloo", "seed-grpo", "gcpo-cd", "gcpo-bot"} <= set(recipes)


def test_doctor_reports_versions_and_hooks(capsys):
    assert main(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert findings["trl hooks"].startswith("intact")
    assert findings["trl release"].startswith("tested (trl>=")
    assert "starter" in findings["models"]
    assert {"torch", "bf16", "vllm", "peft", "math-verify", "sentence-transformers"} <= set(findings)


def test_doctor_says_whether_the_cache_can_be_kept(monkeypatch, tmp_path):
    from gcpo.experiment import doctor

    monkeypatch.setenv("GCPO_CACHE", str(tmp_path / "not" / "yet"))
    assert doctor.examine()["cache"].startswith(f"{tmp_path / 'not' / 'yet'} (")
    (tmp_path / "file").touch()
    monkeypatch.setenv("GCPO_CACHE", str(tmp_path / "file"))
    assert "cannot be written: set GCPO_CACHE" in doctor.examine()["cache"]


def test_doctor_says_that_trl_is_not_one_that_was_tested(monkeypatch):
    from gcpo.experiment import doctor

    monkeypatch.setattr(doctor, "version", lambda name: "9.9.0")
    assert doctor.examine()["trl release"].startswith('not tested: pip install "trl>=1.0,')


def test_doctor_names_what_is_missing(monkeypatch, capsys):
    from gcpo.experiment import doctor

    monkeypatch.setattr(doctor, "_PACKAGES", {"no-such-package": 'pip install "gcpo[train]"'})
    assert main(["doctor"]) == 0
    assert 'missing: pip install "gcpo[train]"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "--data", "absent.jsonl"], "data must be a file, found nothing at absent.jsonl"),
        (["train", "--task", "chess"], "the task must be one of"),
        (["train", "eval_prompts=5000"], "n must be 0 to 1791 for 'countdown', split 'test', found 5000"),
        (
            ["train", "--data", "nowhere/at-all", "data_config=x", "--test-data", "./absent"],
            "test_data must be a file",
        ),
        (["sft", "--task", "math-500", "--data", __file__], "must end with one of .jsonl"),
        (["train", "--reward", "maths"], "a reward must be one of exact"),
        (["train", "test_split=dev"], "test_split is for data, found the task 'countdown' without any: leave it out"),
        (["eval", "--answer-field", "gold"], "answer_field is for data, found the task 'countdown' without any"),
        (["train", "prompt_template={prompt}!"], "prompt_template is for data, found the built-in task 'countdown'"),
        (["train", "task_settings={a: 1}"], "task_settings are for reasoning-gym/NAME, found task 'countdown'"),
        (["eval", "--samples", "0", "greedy=false"], "samples must be at least 1"),
        (["train", "held_out=2"], "held_out must lie between 0 and 1, found 2"),
        (["train", "--recipe", "grop"], "recipe must be one of"),
        (["train", "--model", "./absent"], "the model './absent' cannot be loaded"),
        (["train", "max_step=3"], "there is no setting 'max_step'; did you mean 'max_steps'?"),
        (["train", "max_steps=three"], "max_steps: invalid int value: 'three'"),
        (["report", "absent"], "absent"),
    ],
)
def test_a_wrong_setting_is_named_and_exits_with_two(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "runs").exists()
