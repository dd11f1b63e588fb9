"""Two tasks that a small instruction-tuned model half knows, as JSONL files for ``gcpo train`` and ``gcpo probe``.

    python examples/half_known_tasks.py DIRECTORY

larger.jsonl: the larger of two numbers of two digits. sums.jsonl: sums of two numbers from 1 to 19.
"""

import itertools
import json
import random
import sys
from pathlib import Path


def main(directory: Path) -> None:
    """Write the two files, each prompt once, in random order."""
    directory.mkdir(parents=True, exist_ok=True)
    pairs = [(a, b) for a, b in itertools.permutations(range(10, 100), 2)]
    larger = [(f"Which number is larger, {a} or {b}? Answer with the number only.", max(a, b)) for a, b in pairs]
    sums = [
        (f"What is {a}+{b}? Answer with the number only.", a + b) for a, b in itertools.product(range(1, 20), repeat=2)
    ]
    for name, rows in (("larger", larger), ("sums", sums)):
        random.Random(0).shuffle(rows)
        lines = [json.dumps({"prompt": prompt, "answer": str(answer)}) for prompt, answer in rows[:1000]]
        (directory / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
