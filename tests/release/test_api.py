"""What users call changes only on purpose."""

import difflib
import subprocess
import sys
from pathlib import Path

PROMISED = Path(__file__).with_name("api.txt")


def test_the_public_contract_is_the_promised_one():
    command = [sys.executable, "-m", "tests.release.api"]  # a process of its own: other tests enter signals
    found = subprocess.run(command, cwd=PROMISED.parents[2], capture_output=True, text=True, check=True).stdout
    promised = PROMISED.read_text(encoding="utf-8")
    changes = [
        line
        for line in difflib.unified_diff(promised.splitlines(), found.splitlines(), n=0, lineterm="")
        if not line.startswith(("---", "+++", "@@"))
    ]
    assert not changes, (
        "the public contract is not the one in tests/release/api.txt (- promised, + found):\n"
        + "\n".join(changes)
        + "\nIf that is meant, run `python -m tests.release.api > tests/release/api.txt` and say it in CHANGELOG.md; "
        "what users call is removed only after a version that warns."
    )
