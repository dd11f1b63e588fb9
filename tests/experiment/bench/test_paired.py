"""benchmarks/paired.py: recipes that ran in several benches are paired by seed, and the file named later counts."""

import json
import runpy
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[3] / "benchmarks" / "paired.py"


def bench(path, rate=1e-4, **recipes):
    """A file of a bench: final accuracies by recipe, of seeds 0, 1, ...."""
    rows = {
        name: {"runs": {str(seed): {"final": final, "area": final / 2} for seed, final in enumerate(finals)}}
        for name, finals in recipes.items()
    }
    tuning = {name: {"chosen": {"learning_rate": rate}} for name in recipes}
    path.write_text(json.dumps({"problems": {"chain/small": {"recipes": rows}}, "tuning": {"chain/small": tuning}}))
    return path


def paired(capsys, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", [str(PATH), *map(str, words)])
    runpy.run_path(str(PATH), run_name="__main__")
    return capsys.readouterr()


def test_recipes_of_two_files_are_paired_by_seed(tmp_path, capsys, monkeypatch):
    first = bench(tmp_path / "a.json", grpo=[0.25, 0.5, 0.75])
    second = bench(tmp_path / "b.json", gcpo=[0.5, 0.75, 1.0, 0.0])
    said = paired(capsys, monkeypatch, "gcpo", first, second).out
    row = "| grpo, chain/small | 50.0 | 75.0 | +25.0 (+25.0 to +25.0) | 0.78 (0.78 to 1.00) | 3 of 3 | 0.250, 0.250 |"
    assert row in said
    said = paired(capsys, monkeypatch, "grpo", first, second, "--matrix").out
    assert said == "| minus grpo | chain/small |\n|---|---|\n| gcpo | **+25.0** (+25.0 to +25.0) |\n"


def test_a_file_named_later_counts_where_it_chose_otherwise_or_ended_otherwise(tmp_path, capsys, monkeypatch):
    files = [bench(tmp_path / "a.json", grpo=[0.25, 0.25], gcpo=[0.5, 0.5])]
    files += [bench(tmp_path / "b.json", rate=5e-5, gcpo=[0.75])]
    said = paired(capsys, monkeypatch, "grpo", *files, "--matrix")
    assert "| gcpo | +50.0 |\n" in said.out  # of the one seed at the later rate, which has no interval
    assert said.err == ""
    files[1] = bench(tmp_path / "b.json", gcpo=[0.75])
    said = paired(capsys, monkeypatch, "grpo", *files)
    assert "| gcpo, chain/small | 62.5 | 25.0 | -37.5 (" in said.out
    assert "chain/small, gcpo, seed 0: {'final': 0.5" in said.err


def test_one_pair_and_names_that_no_file_has(tmp_path, capsys, monkeypatch):
    file = bench(tmp_path / "a.json", grpo=[0.25], gcpo=[0.5])
    said = paired(capsys, monkeypatch, "gcpo", file).out
    assert "| grpo, chain/small | 25.0 | 50.0 | +25.0 | 1.00 | 1 of 1 | 1.000, 1.000 |" in said
    with pytest.raises(SystemExit, match="no problem has runs of grppo: give another recipe"):
        paired(capsys, monkeypatch, "grppo", file)
    with pytest.raises(SystemExit, match="no problem has runs of both gcpo and rloo"):
        paired(capsys, monkeypatch, "gcpo", file, "--against", "rloo")
