"""Whole verl runs on a CPU with each source of vectors; minutes each, so run by hand: ``tests/verl/run``."""

import math

import pytest

pytest.importorskip("verl")

from tests.verl.rig import loop

pytestmark = pytest.mark.slow

CASES = {
    "text": {"ranks": 1, "overrides": ("enable=True", "log_signals=[semantic_entropy,cosine_dispersion]")},
    "workers": {"ranks": 1, "overrides": ("recipe=gcpo-bot", "embedder=hashed", "workers=2")},
    "reward": {"ranks": 2, "vectors": True, "overrides": ("recipe=gcpo-bot", "embedder=reward")},
    "policy": {
        "ranks": 2,
        "overrides": ("recipe=gcpo", "embedder=policy", "log_signals=[barycentric_transport,predictive_entropy]"),
    },
    "agent": {
        "ranks": 2,
        "overrides": (
            "recipe=gcpo-bot",
            "embedder=policy",
            f"verl:actor_rollout_ref.rollout.agent.agent_loop_config_path={loop.RIG / 'agents.yaml'}",
            "verl:actor_rollout_ref.rollout.agent.default_agent_loop=restless",
        ),
    },
    "estimator": {"ranks": 1, "overrides": ("recipe=gcpo-cd", "verl:algorithm.adv_estimator=gcpo")},
    "legacy": {"ranks": 1, "overrides": ("recipe=gcpo-bot", "verl:trainer.use_v1=False")},
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_is_steered_from_end_to_end(tmp_path, case):
    done = loop.run(tmp_path, steps=2, **CASES[case])
    assert done.returncode == 0, (tmp_path / "log").read_text()[-3000:]
    steps = loop.metrics(tmp_path)
    assert len(steps) == 2
    for step in steps:
        assert step["gcpo/weight/mean"] == pytest.approx(1.0, abs=1e-5) or step["gcpo/dead_groups"] == 1
        assert all(math.isfinite(value) for name, value in step.items() if name.startswith("gcpo/"))
        assert step["actor/grad_norm"] > 0 or step["gcpo/dead_groups"] == 1
        # The rollout samples from the weights the actor was updated to.
        assert step["training/rollout_probs_diff_max"] < 1e-3
    named = [o.split("=", 1)[1].strip("[]").split(",") for o in CASES[case]["overrides"] if o.startswith("log_")]
    assert all(f"gcpo/signal/{signal}" in steps[0] for signals in named for signal in signals)
    # verl's own loggers: the file read above, and the console.
    assert "gcpo/weight/mean:" in (tmp_path / "log").read_text()
    if case == "policy":
        assert steps[0]["gcpo/grad/variance"] > 0


def test_a_wrong_option_ends_the_run_with_its_sentence(tmp_path):
    assert loop.run(tmp_path, steps=1, overrides=("alhpa=2",)).returncode != 0
    assert "algorithm.gcpo.alhpa is no option" in (tmp_path / "log").read_text()
