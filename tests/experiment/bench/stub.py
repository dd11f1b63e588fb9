"""In place of ``gcpo train``: a cell that takes a moment; ``seed=13`` fails, and every start is counted."""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import yaml


def main() -> int:
    parser = argparse.ArgumentParser()
    for flag in ("--config", "--output"):
        parser.add_argument(flag, type=Path)
    given = parser.parse_args()
    settings = yaml.safe_load(given.config.read_text())
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "config.yaml").write_text(
        yaml.safe_dump({"command": "train", **settings, "versions": {"torch": "1"}})
    )
    with (given.output / "starts").open("a") as file:
        file.write("started\n")
    if settings["seed"] == 13:
        print("it broke, by bad luck", file=sys.stderr)
        return 1
    try:
        time.sleep(float(os.environ.get("STUB_SECONDS", "0")))
        while (until := os.environ.get("STUB_UNTIL")) and not Path(until).exists():
            time.sleep(0.02)
    except KeyboardInterrupt:
        return 130
    (given.output / "checkpoints").mkdir(exist_ok=True)
    metrics = [{"step": step, "completions/mean_length": 10.0} for step in (1, 2)]
    (given.output / "metrics.jsonl").write_text("".join(json.dumps(m) + "\n" for m in metrics))
    measured = {"before": {"accuracy": 0.25}, "after": {"accuracy": 0.5}}
    summary = {"status": "finished", "report": None, "steps": 2, "seconds": 3.0, "responses": 8, **measured}
    (given.output / "summary.json").write_text(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
