"""A new user's first minute with an installed gcpo, away from its sources: ``python smoke.py core|train``."""

import importlib.util
import json
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

COMMAND = Path(sys.executable).with_name("gcpo")


def asked(*arguments: str) -> str:
    """What the command says on standard output."""
    return subprocess.run([COMMAND, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def core() -> None:
    """Signals, recipes and the listing need no trainer."""
    import torch

    import gcpo
    from gcpo import recipe, signals

    assert importlib.util.find_spec("trl") is None, "trl is installed: this is not the core alone"
    assert "site-packages" in str(gcpo.__file__), f"gcpo comes from {gcpo.__file__}, not from the wheel"
    assert metadata("gcpo")["Version"] == gcpo.__version__
    advantages = recipe("gcpo-cd")(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), embeddings=torch.eye(2).expand(2, 2, 2))
    assert advantages.advantages[1].tolist() == [0, 0]
    assert signals.cosine_dispersion(torch.eye(2)[None]).item() == 1
    assert "gcpo-bot" in json.loads(asked("list", "recipes", "--json"))["recipes"]


def train() -> None:
    """The packaged policy trains, and its page is drawn."""
    asked("train", "--output", "run", "max_steps=2", "per_device_train_batch_size=32", "eval_prompts=16")
    assert json.loads(Path("run/summary.json").read_text())["status"] == "finished"
    page = Path(json.loads(asked("report", "run", "--json"))["report"]).read_text()
    assert 'id="data"' in page
    assert json.loads(asked("doctor", "--json"))["trl hooks"].startswith("intact")


if __name__ == "__main__":
    {"core": core, "train": train}[sys.argv[1]]()
