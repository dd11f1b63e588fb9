"""Qwen2.5-Math-1.5B on GSM8K or MATH with one GPU of 24 GB: training, then both models on the test prompts.

    pip install "gcpo[train,lora]"                 # and vllm, if you have it: it is used where it is installed
    python examples/qwen_math.py                   # GSM8K, from the hub
    python examples/qwen_math.py --on math         # MATH's training split, evaluated on MATH-500

``qwen_math.yaml`` has the settings and how they fit into memory; any may be given as ``key=value``. An interrupted run
goes on with the same command. ``DIR/run/report.html`` is the page of the training, ``DIR/eval/report.html`` that of
the evaluation: greedy accuracy, pass@k and majority vote of the trained model and of the one it was, a paired test.
"""

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import torch

from gcpo.cli import main as gcpo

MODEL = "Qwen/Qwen2.5-Math-1.5B"
BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
ROWS = {
    "gsm8k": {"train": ["--task", "gsm8k"], "eval": ["--task", "gsm8k"], "length": 512},
    "math": {
        "train": [
            *("--data", "DigitalLearningGmbH/MATH-lighteval", "test_split=test"),
            *("--prompt-field", "problem", "--answer-field", "solution"),
        ],
        "eval": ["--task", "math-500"],
        "length": 1024,
    },
}


def finished(directory: Path) -> bool:
    """Whether the run there is done."""
    summary = directory / "summary.json"
    return summary.is_file() and json.loads(summary.read_text())["status"] == "finished"


def main() -> int:
    """Train, then evaluate; what is finished is not done again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", choices=ROWS, default="gsm8k", help="which problems (gsm8k)")
    parser.add_argument("--model", default=MODEL, help=f"another model, by path or hub id ({MODEL})")
    parser.add_argument("--data", help="rows in that data set's format in place of the hub's; for MATH both")
    parser.add_argument("--test-data", help="the same to test on")
    parser.add_argument("--length", type=int, help="tokens of the longest response (512, for MATH 1024)")
    parser.add_argument("--samples", type=int, default=4, help="responses to each test prompt (4)")
    parser.add_argument("--output", type=Path, default=Path("runs/qwen-math"), metavar="DIR")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of gcpo train")
    given = parser.parse_args()
    rows, system = ROWS[given.on], ["--system", BOXED]
    length = given.length or rows["length"]
    places = [f"{name}={getattr(given, name)}" for name in ("data", "test_data") if getattr(given, name)]
    vllm = find_spec("vllm") is not None and torch.cuda.is_available()

    run, evaluation = given.output / "run", given.output / "eval"
    if not finished(run):
        config = ["--config", str(Path(__file__).with_suffix(".yaml")), f"max_completion_length={length}"]
        words = [*rows["train"], *places, *system, *config, f"use_vllm={vllm}", *given.overrides]
        if code := gcpo(["train", "--model", given.model, "--output", str(run), *words]):
            return code
    if not finished(evaluation):
        models = ["--model", str(run / "model"), "--against", given.model, "--output", str(evaluation)]
        asked = [f"samples={given.samples}", f"max_new_tokens={length}", "dtype=bfloat16"]
        rows_asked = rows["train"] if given.data else rows["eval"]  # MATH-500 has other fields than MATH
        return gcpo(["eval", *models, *rows_asked, *places, *system, *asked])
    return 0


if __name__ == "__main__":
    sys.exit(main())
