"""``gcpo probe`` as a user runs it, and its parts on pools that are known."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from gcpo import recipe
from gcpo.cli import main
from gcpo.experiment.geometry import Geometry
from gcpo.experiment.probe import _columns, _sketch_error, _tracking, probe
from gcpo.experiment.resolve import resolve
from gcpo.experiment.settings import ProbeSettings, UsageError
from gcpo.probe.alignment import Pool
from gcpo.probe.tracking import Bootstrap
from gcpo.recipes import RECIPES
from gcpo.signals import SIGNALS
from tests.experiment.test_train import gcpo, lines

SMALL = [
    "--task=chain", "groups=8", "group_size=4", "responses=8", "batch_prompts=2", "blocks=4", "batches=8",
    "features=128", "resamples=50", "batch_size=16",
]  # fmt: skip
TARGETS = {f"{kind}_variance/{which}" for kind in ("score", "weighted") for which in ("same", "fresh")} | {
    f"weighted_variance/{which}/live" for which in ("same", "fresh")
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    output = tmp_path_factory.mktemp("probe") / "run"
    done = gcpo("probe", "--json", *SMALL, "--output", output)
    assert done.returncode == 0, done.stderr
    return output, json.loads(done.stdout)


def test_the_tables_are_keyed_by_signals_targets_and_recipes(run):
    output, printed = run
    tracking, alignment = (json.loads((output / f"{name}.json").read_text()) for name in ("tracking", "alignment"))
    assert set(tracking) == {*SIGNALS, "anisotropic_gap", "calibration_gap"}
    for name in SIGNALS:
        assert set(tracking[name]) == TARGETS
        assert {"spearman", "kendall"} <= set(tracking[name]["score_variance/same"])
    assert set(alignment) == {*RECIPES, "group_sizes"}
    assert set(alignment["gcpo-cd"]) == {"clean", "flip=0.25"}
    assert printed["tracking"] == tracking
    summary = json.loads((output / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert all(0 < error < 1 for error in summary["sketch_error"].values())


def test_the_gaps_are_differences_within_the_table(run):
    tracking = run[1]["tracking"]
    gap = tracking["anisotropic_gap"]
    rho = {name: tracking[name]["score_variance/fresh"]["spearman"]["value"] for name in SIGNALS}
    expected = rho[gap["signal"]] - rho["semantic_entropy"]
    assert gap["fresh"]["difference"]["value"] == pytest.approx(expected)


def test_every_prompt_has_its_signals_and_targets(run):
    prompts = lines(run[0] / "prompts.jsonl")
    assert len(prompts) == 8
    for prompt in prompts:
        assert len(prompt["rewards"]) == 8
        assert set(prompt["signals"]) == set(SIGNALS)
        assert set(prompt["targets"]) == TARGETS
        assert (prompt["targets"]["score_variance/same"] > 0) == (prompt["signals"]["lexical_dispersion"] > 0)
    dead = [p for p in prompts if len(set(p["rewards"][:4])) == 1]
    assert all(p["targets"]["weighted_variance/same"] == 0 for p in dead)
    assert all(p["targets"]["weighted_variance/same/live"] is None for p in dead)
    assert (run[0] / "report.html").is_file()


def test_the_same_seed_gives_the_same_tables(run, tmp_path):
    again = gcpo("probe", "--json", *SMALL, "--output", tmp_path / "again")
    assert json.loads(again.stdout)["tracking"] == run[1]["tracking"]
    assert json.loads(again.stdout)["alignment"] == run[1]["alignment"]


def test_responses_that_a_signal_does_not_see_join_no_meanings():
    """Of three responses the last is like both others, which are not alike."""
    same = torch.tensor([[[True, False, True], [False, True, True], [True, True, True]]])
    texts = [["a", "b", "c"]]
    pool = Pool(
        torch.zeros(1, 3, 2), torch.zeros(1, 3), {"texts": texts, "points": torch.arange(3.0).view(1, 3, 1)}, same
    )
    seen = _columns(pool, slice(0, 2))
    assert seen["labels"].tolist() == [[0, 1]]
    assert (seen["texts"], seen["points"].flatten().tolist()) == ([["a", "b"]], [0, 1])
    assert _columns(pool, slice(0, None))["labels"].tolist() == [[0, 0, 0]]
    assert pool.part(torch.tensor([[0]]), torch.tensor([[2, 0]]))["labels"].tolist() == [[0, 0]]


@pytest.mark.parametrize(("equivalence", "expected"), [("cosine:0.9", {(0, 1), (1, 2)}), ("folded", {(0, 2)})])
def test_geometry_says_who_means_the_same(equivalence, expected):
    geometry = Geometry(ProbeSettings(equivalence=equivalence), None)
    texts = ["#12", "#0.12", "6+6\n#12", "none"]
    turned = torch.tensor([[[1.0, 0.0], [0.95, 0.3], [0.8, 0.6], [0.0, 0.0]]])
    same = geometry._same(texts, {"embeddings": turned}, 4)[0]
    pairs = {(i, j) for i, j in same.nonzero().tolist() if i < j}
    assert pairs == expected


def test_what_is_printed_for_people(tmp_path):
    done = gcpo("probe", *SMALL, "--output", tmp_path / "run")
    for words in ("Spearman correlation with", "anisotropic_gap (fresh", "cosine with the true gradient", "seed-grpo"):
        assert words in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["responses=12"], "responses must be at least twice group_size, 16, found 12: raise it, or lower"),
        (["batches=4"], "batches must be at least blocks, 8, found 4: raise it"),
        (["batch_size=16"], "batch_size must be at least responses, 32, since a pass takes all of a prompt, found 16"),
        (["groups=100"], "groups must be at least blocks times batch_prompts, 8 x 16, found 100"),
        (["flip=2"], "flip must be probabilities, found"),
        (["flip=a"], "flip must be a list of numbers"),
        (["group=8"], "there is no setting 'group'; did you mean 'groups'"),
        (["max_steps=8"], "there is no setting 'max_steps'"),
    ],
)
def test_settings_that_cannot_be_carried_out_are_named(words, message):
    with pytest.raises(UsageError, match=message):
        resolve(ProbeSettings, {}, None, words)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": "grpo"}, "recipe 'grpo' has no signal to probe"),
        ({"recipes": ["grop"]}, "recipe must be one of"),
        ({"steps": "words"}, "steps must be auto, lines or sentences, found 'words'"),
        ({"equivalence": "cosine:2"}, "equivalence must be one of exact, folded, math or cosine:T with T in"),
        (
            {"embedder": "./nowhere"},
            "the embedder must be a sentence-transformers model by path or hub id, found './n",
        ),
        ({"features": 16}, "features must be 0 or at least 38, one a parameter, found 16"),
    ],
)
def test_what_cannot_be_probed_is_named(tmp_path, settings, message):
    if "embedder" in settings:
        pytest.importorskip("sentence_transformers")
    with pytest.raises(UsageError, match=message):
        probe(ProbeSettings(**settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_lists_are_given_as_words_or_as_yaml():
    for words in (["flip=0,0.5", "recipes=grpo,rloo"], ["flip=[0, 0.5]", "recipes=[grpo, rloo]"]):
        settings = resolve(ProbeSettings, {}, None, words)
        assert settings.recipes == ["grpo", "rloo"]
        assert np.allclose(settings.flip, [0, 0.5])


def test_rewards_of_another_range_are_measured_against_it(tmp_path):
    words = [*SMALL[1:], "exact=false", "reward=[task, '3*length:2']"]
    settings = resolve(ProbeSettings, {"task": "chain", "recipes": ["gcpo-bot"]}, None, words)
    summary = probe(settings, tmp_path / "run")
    rewards = [p["rewards"] for p in lines(tmp_path / "run" / "prompts.jsonl")]
    assert max(max(r) for r in rewards) > 1
    assert 0 <= summary["accuracy"] <= 1, "the first reward, not the sum"
    for prompt, given in zip(lines(tmp_path / "run" / "prompts.jsonl"), rewards, strict=True):
        spread = (max(given[:4]) - min(given[:4])) / 4
        assert prompt["signals"]["reward_spread"] == pytest.approx(spread, abs=1e-6)


def test_geometry_comes_from_where_the_settings_say(run, tmp_path):
    words = ["embedder=hashed", "equivalence=cosine:0.1", "steps=sentences", "exact=false", "recipes=grpo"]
    assert gcpo("probe", *SMALL, *words, "--output", tmp_path / "run").returncode == 0
    before, after = (lines(output / "prompts.jsonl") for output in (run[0], tmp_path / "run"))
    assert [p["completions"] for p in before] == [p["completions"] for p in after]
    changed = {n for b, a in zip(before, after, strict=True) for n in SIGNALS if b["signals"][n] != a["signals"][n]}
    assert {"cosine_dispersion", "barycentric_transport", "semantic_entropy"} <= changed
    assert not changed & {"reward_dispersion", "lexical_dispersion", "predictive_entropy"}


def test_a_reward_outside_its_range_ends_in_a_sentence(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("def long(response, example):\n    return 7\n")
    reward = ["--reward", f"{tmp_path / 'mine.py'}:long", "--output", str(tmp_path / "run")]
    assert main(["probe", *SMALL, *reward]) == 1
    assert "must give numbers in [0, 1], found 7.0" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"


def test_the_calibration_gap_is_what_rewards_add():
    draw = np.random.default_rng(0)
    signals = {name: draw.random(40) for name in ("semantic_entropy", "cosine_dispersion", "reward_dispersion")}
    targets = {
        f"{kind}_variance/{which}": draw.random(40) for kind in ("score", "weighted") for which in ("same", "fresh")
    }
    live = draw.random(40) < 0.7
    targets |= {
        f"weighted_variance/{w}/live": np.where(live, targets[f"weighted_variance/{w}"], np.nan)
        for w in ("same", "fresh")
    }
    gap = _tracking(signals, targets, recipe("gcpo-cd"), Bootstrap.draw(40, 20, 0))["calibration_gap"]
    u, rd = signals["cosine_dispersion"], signals["reward_dispersion"]
    for which in ("same", "fresh"):
        v = targets[f"weighted_variance/{which}"]
        for name, rows in (("difference", slice(None)), ("difference_live", live)):
            rho = [spearmanr(x[rows], v[rows]).statistic for x in (u * rd, u)]
            assert gap[which][name]["value"] == pytest.approx(rho[0] - rho[1])


def test_the_error_of_a_sketch_is_the_relative_difference_of_its_halves():
    x = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0))
    rewards = torch.tensor([[1.0, 0, 0, 1]]).expand(6, 4)
    found = _sketch_error(Pool(torch.cat([x, 3 * x], -1), rewards, {}))
    assert found == {name: pytest.approx(0.8) for name in ("score_variance", "weighted_variance")}  # (9 - 1) / (9 + 1)
