"""Runs tests of the TRL integration on releases of TRL in environments of its own, writes docs/results/versions.md.

    python tests/versions/run.py                  the newest patch of every release since 1.0
    python tests/versions/run.py 1.4.0 1.16.0     these

Each release runs on two environments: the versions of constraints.txt, and the oldest transformers that TRL takes.
They are made once, in ``--cache``, and releases of TRL are installed into them by turns. What ran is kept there too:
an interrupted matrix goes on, and the page has all that was kept. torch comes from the index that pip is set up with.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results" / "versions.md"
OLDEST = "4.56.2"  # what every release of TRL since 1.0 asks for at least
TRL, PACKING, RESUME = (f"tests/integrations/test_{name}.py::test_" for name in ("trl", "packing", "resume"))
RESUMED = ("one batch a step", "two uses of a batch")
CHECKS = {
    "bit for bit": [f"{TRL}recipe_grpo_trains_bit_by_bit_as_trl_does"],
    "advantages": [f"{TRL}advantages_equal_those_of_trl", f"{TRL}rloo_advantages_equal_those_of_trl"],
    "recipes": [f"{TRL}every_recipe_trains_and_logs"],
    "rewards": [f"{TRL}several_rewards_some_of_them_missing"],
    "evaluation": [f"{TRL}evaluation_logs_under_its_own_name"],
    "packing": [f"{PACKING}gradients_are_equal_in_double_precision", f"{PACKING}a_kl_penalty_switches_it_off"],
    "tap": [f"{TRL}geometry_comes_from_the_generation_itself"],
    "resume": [f"{RESUME}a_run_resumed_from_a_checkpoint_is_the_run_it_would_have_been[{case}]" for case in RESUMED],
}
"""What a column of the page says, and the tests it stands for; they run in the default suite too."""

HEADER = """# Releases of TRL

Written by `python tests/versions/run.py`: tests of the default suite on releases of TRL, in environments of their own
(torch 2.13.0, CPU). A cell has the tests passed of those run.

- *bit for bit*: `recipe="grpo"` ends with the parameters and losses of `GRPOTrainer`, to the last bit.
- *advantages*: those of `grpo`, `dr-grpo` and `rloo` are TRL's, to 1e-6.
- *recipes*: every recipe trains and logs. *rewards*: several with weights, some of them missing. *evaluation*: under
  its own names, with 1, 2 and 4 responses a prompt.
- *packing*: gradients equal TRL's in double precision, every loss type and level, and it is off with a KL penalty.
- *tap*: signals from the generation itself are those of a forward pass.
- *resume*: from a checkpoint after the first epoch, and from each of a run with `num_iterations=2`, bit for bit.

1.15.0 cannot train on a CPU without Triton; pyproject.toml leaves it out. Releases before 1.14 import `requests` and
do not ask for it; gcpo's extra does. 1.0.0 takes the mean of rewards in another order, so that parities differ in the
last bit. A release without a row was not run; the signatures of the methods that gcpo wraps are the same in all 23
from 1.0.0 to 1.16.0.

"""


def main() -> None:
    """Run what has not been run, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", nargs="*", help="of TRL; the newest patch of each since 1.0 without it")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "gcpo" / "versions")
    parser.add_argument("--host", choices=("pinned", "oldest"), help="one of the two environments")
    given = parser.parse_args()
    for host in [given.host] if given.host else ["pinned", "oldest"]:
        python = environment(given.cache / host, host)
        for release in given.releases or releases(python):
            kept = given.cache / f"{host}-{release}.json"
            if not kept.exists():
                kept.write_text(json.dumps(examine(python, host, release), indent=1))
                print(host, release, row(json.loads(kept.read_text())), flush=True)
    results = [json.loads(path.read_text()) for path in given.cache.glob("*.json")]
    PAGE.write_text(HEADER + table(results))
    print(PAGE.read_text())


def environment(directory: Path, host: str) -> Path:
    """The interpreter of an environment with all but TRL's release; made if it is not there."""
    python, limits = directory / "bin" / "python", directory / "limits.txt"
    if not limits.exists():
        venv.create(directory, with_pip=True)
        pinned = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("trl==")]
        wanted = "\n".join(pinned) if host == "pinned" else f"torch==2.13.0\ntransformers=={OLDEST}"
        (directory / "wanted.txt").write_text(wanted)
        pip(python, directory / "wanted.txt", "-e", f"{ROOT}[test,lora]")
        limits.write_text(wanted)  # the mark of an environment that is whole
    return python


def pip(python: Path, limits: Path, *what: str) -> None:
    """Install within limits."""
    subprocess.run([python, "-m", "pip", "install", "-q", "-c", limits, *what], check=True)


def releases(python: Path) -> list[str]:
    """The newest patch of each release since 1.0, newest first."""
    asked = [python, "-m", "pip", "index", "versions", "trl"]
    said = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    found = re.findall(r"\d+\.\d+\.\d+", said.partition("Available versions:")[2].partition("\n")[0])
    newest: dict[str, str] = {}
    for release in sorted(found, key=numbers):
        newest[release.rpartition(".")[0]] = release
    return [release for release in reversed(newest.values()) if numbers(release) >= (1,)]


def numbers(release: str) -> tuple[int, ...]:
    """``1.14.2`` as a tuple."""
    return tuple(map(int, release.split(".")))


def examine(python: Path, host: str, release: str) -> dict[str, Any]:
    """Install a release and run the checks; passed and run of each, and what the first that failed said."""
    pip(python, python.parents[1] / "limits.txt", f"trl=={release}")
    report = python.parents[1] / "report.xml"
    report.unlink(missing_ok=True)
    tests = [test for tests in CHECKS.values() for test in tests]
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    asked = "from importlib.metadata import version; print(version('transformers'))"
    transformers = subprocess.run([python, "-c", asked], check=True, capture_output=True, text=True).stdout.strip()
    result = {"host": host, "trl": release, "transformers": transformers, "said": ""}
    if not report.exists():
        return result | {"checks": {}, "said": done.stdout[-300:] + done.stderr[-300:]}
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = [fault for case in cases for fault in (*case.findall("failure"), *case.findall("error"))]
    checks = {name: score([c for c in cases if belongs(c, tests)]) for name, tests in CHECKS.items()}
    if failed:
        said = [
            line.removeprefix("E").strip() for line in (failed[0].text or "").splitlines() if line.startswith("E ")
        ]
        result["said"] = " ".join(said[-2:] if "see its traceback" in " ".join(said[-2:]) else said[:1])
    return result | {"checks": checks}


def belongs(case: ElementTree.Element, tests: list[str]) -> bool:
    """Whether a case is of one of the tests."""
    file = case.get("classname", "").rpartition(".")[2]
    return any(f"{file}.py::{case.get('name')}".startswith(test.rpartition("/")[2]) for test in tests)


def score(cases: list[ElementTree.Element]) -> tuple[int, int]:
    """How many passed, of how many."""
    return sum(not list(case.iter("failure")) + list(case.iter("error")) for case in cases), len(cases)


def row(result: dict[str, Any]) -> list[str]:
    """The cells of a release."""
    cells = [f"{p} / {n}" if n else "-" for p, n in (result["checks"].get(name, (0, 0)) for name in CHECKS)]
    return [result["trl"], result["transformers"], *cells, result["said"].replace("|", "\\|")[:200]]


def table(results: list[dict[str, Any]]) -> str:
    """The page's table, newest release first."""
    ordered = sorted(results, key=lambda r: (numbers(r["trl"]), numbers(r["transformers"])), reverse=True)
    names = ["TRL", "transformers", *CHECKS, "first failure"]
    lines = [names, ["---"] * len(names), *map(row, ordered)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
