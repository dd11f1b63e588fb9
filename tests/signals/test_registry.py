"""The table of signals: how a signal joins, what it says of itself, and what other packages may add."""

import os
import subprocess
import sys

import pytest
import torch

from gcpo import recipe, signals
from gcpo.signals import SIGNALS, primary, signal

B, G, D = 4, 6, 5


@pytest.fixture
def mine():
    """A signal of the test's own, gone again afterwards."""

    @signal(upper=None, source="this test")
    def largest_distance(embeddings, mask=None, power=1.0):
        """Largest distance from the first response."""
        return (embeddings - embeddings[:, :1]).norm(dim=-1).amax(-1) ** power

    yield SIGNALS["largest_distance"]
    del SIGNALS["largest_distance"]


def test_a_signal_stays_the_function_it_is_and_declares_itself(mine):
    assert mine.needs == ("embeddings",)
    assert mine.takes == ("embeddings", "mask")
    assert mine.summary == "Largest distance from the first response."
    assert mine.source == "this test"


def test_a_new_signal_steers_a_recipe_at_once(mine):
    out = recipe("gcpo-cd", signal="largest_distance")(torch.rand(B, G), embeddings=torch.randn(B, G, D))
    assert out.signals["largest_distance"].shape == (B,)
    assert len(out.weights.unique()) > 1


def test_a_signal_that_needs_what_no_host_has_is_refused():
    with pytest.raises(ValueError, match="signal 'odd' needs 'colour', which no host can give it"):

        @signal(upper=None, source="")
        def odd(colour):
            return colour

    assert "odd" not in SIGNALS


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(ValueError, match=r"has the name of the one in gcpo\.signals\.cosine_dispersion: rename it"):

        @signal(upper=None, source="")
        def cosine_dispersion(embeddings):
            return embeddings

    assert SIGNALS["cosine_dispersion"].function is signals.cosine_dispersion


def test_settings_are_never_filled_in_by_a_host():
    # semantic_entropy knows log-probabilities, but what it computes must not hang on whether they happen to be there.
    assert SIGNALS["semantic_entropy"].takes == ("labels", "mask")
    labels, log_probs = torch.randint(0, 3, (B, G)), -5 * torch.rand(B, G)
    given = {"labels": labels, "log_probs": log_probs}
    assert torch.equal(SIGNALS["semantic_entropy"](given), signals.semantic_entropy(labels))


def test_a_similarity_is_made_of_embeddings_where_it_is_not_given():
    x = torch.randn(B, G, D)
    made = SIGNALS["degree_dispersion"]({"embeddings": x})
    assert torch.equal(made, signals.degree_dispersion(signals.affinity(x)))
    own = torch.eye(G).expand(B, G, G)
    assert torch.equal(
        SIGNALS["degree_dispersion"]({"embeddings": x, "similarity": own}), signals.degree_dispersion(own)
    )
    assert primary(["similarity", "labels"]) == {"embeddings", "labels"}


PLUGIN = '''
from gcpo.signals import signal

@signal(upper=None, source="elsewhere")
def elsewhere(rewards, mask=None):
    """From another package."""
    return rewards.sum(-1)
'''


def run_with_plugin(tmp_path, code, source=PLUGIN):
    """Run code where another package is installed that declares a signal."""
    (tmp_path / "their_signals.py").write_text(source)
    info = tmp_path / "their_signals-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-signals\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gcpo.signals]\ntheirs = their_signals\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_another_package_adds_a_signal_by_an_entry_point(tmp_path):
    done = run_with_plugin(tmp_path, "import sys; from gcpo.cli import main; sys.exit(main(['list', 'signals']))")
    assert done.returncode == 0, done.stderr
    assert "elsewhere" in done.stdout
    assert "From another package. [elsewhere]" in done.stdout


def test_a_broken_plugin_is_named(tmp_path):
    done = run_with_plugin(tmp_path, "import gcpo.signals", source="import nothing_of_that_name")
    assert done.returncode != 0
    assert "the signals of package 'their-signals' (their_signals) cannot be loaded" in done.stderr
    assert "mend or uninstall the package" in done.stderr


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "signals must be a Python file, found nothing at"),
        ("1 / 0", "cannot be loaded: ZeroDivisionError: division by zero"),
        ("x = 1", "enters no signal: decorate one with @signal"),
    ],
)
def test_a_file_that_gives_no_signal_is_refused(tmp_path, source, message):
    path = tmp_path / "mine.py"
    if source is not None:
        path.write_text(source)
    with pytest.raises(ValueError, match=message):
        signals.load_file(path)
