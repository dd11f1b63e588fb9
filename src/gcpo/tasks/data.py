r"""Prompts and answers from rows of data.

    DataTask(Source("gsm8k/train.jsonl"), Fields("question"), test=Source("gsm8k/test.jsonl"))

Without rows to test on, a share of the prompts is held out: which, follows from their text and a seed alone, not from
the order of rows. Train and test never share a prompt. docs/data.md has the formats.
"""

import hashlib
import random
from collections.abc import Callable, Iterable
from pathlib import Path

from gcpo.tasks.base import Example, Split
from gcpo.tasks.fields import Fields
from gcpo.tasks.rewards import Reward, WeightedSum, parse
from gcpo.tasks.sources import Row, RowError, Source, malformed


class DataTask:
    """Rows as a task.

    Args:
        train: Rows to train on; None for rows to test on alone.
        fields: Which field is what.
        test: Rows to test on; None: ``held_out`` of ``train``.
        reward: What a response gets; None: ``math``, for multiple choice ``choice``.
        held_out: Share of the prompts held out for testing.
        split_seed: Decides which they are.
        max_new_tokens: Longest response.
        name: In messages; None: the file's name.
        flatten: From a row as published to rows with ``fields``.

    Attributes:
        repeated: Number of rows left out because an earlier row has their prompt.

    Raises:
        ValueError: Rows are malformed (named by line and reason), too few are left, or train and test share a prompt.
    """

    def __init__(
        self,
        train: Source | Path | None,
        fields: Fields | None = None,
        test: Source | None = None,
        reward: Reward | WeightedSum | None = None,
        held_out: float = 0.1,
        split_seed: int = 0,
        max_new_tokens: int = 256,
        name: str | None = None,
        flatten: Callable[[Row], Iterable[Row]] | None = None,
    ) -> None:
        fields = fields or Fields()
        source = Source(str(train)) if isinstance(train, Path) else train
        places = [s for s in (source, test) if s is not None]
        self.name = name or Path(places[0].place).name
        self.summary = f"rows of {' and '.join(map(str, places))}"
        self.max_new_tokens = max_new_tokens
        self._reward = reward or parse(["math" if fields.choices is None else "choice"])
        self.reward_low, self.reward_range = self._reward.low, self._reward.high - self._reward.low
        self.repeated = 0
        rows = {s: self._read(s, fields, flatten) for s in places}
        if test is None:
            assert source is not None
            self._rows = _hold_out(source, rows[source], fields.prompt, held_out, split_seed)
        else:
            self._rows = {"test": rows[test], "train": rows[source] if source else []}
            _check_disjoint(self._rows)

    def count(self, split: Split) -> int:
        """How many prompts a split has."""
        return len(self._rows[split])

    def examples(self, split: Split, n: int, seed: int) -> list[Example]:
        """``n`` distinct rows of a split, drawn by ``seed``; ValueError if it has fewer."""
        if not 0 <= n <= self.count(split):
            raise ValueError(f"n must be 0 to {self.count(split)} for {self.name!r}, split {split!r}, found {n}.")
        return random.Random(seed).sample(self._rows[split], n)

    def grade(self, response: str, example: Example) -> float:
        """The reward of the response."""
        return self._reward(response, example)

    def score(self, response: str, example: Example) -> float:
        """How right it is, in [0, 1], by the first of the rewards."""
        return self._reward.score(response, example)

    def _read(self, source: Source, fields: Fields, flatten: Callable[[Row], Iterable[Row]] | None) -> list[Example]:
        """The distinct problems of a source, in order."""
        found: list[Example] = []
        faults: list[str] = []
        for where, row in source.rows():
            try:
                if isinstance(row, RowError):
                    raise row
                found += [fields.example(flat) for flat in (flatten(row) if flatten else [row])]
            except RowError as fault:
                faults.append(f"{where}: {fault}")
        if faults:
            raise malformed(source, faults)
        distinct: dict[str, Example] = {}
        for example in found:
            distinct.setdefault(example.prompt, example)
        self.repeated += len(found) - len(distinct)
        if not distinct:
            raise ValueError(f"{source} must hold at least one prompt, found none.")
        return list(distinct.values())


def _hold_out(source: Source, rows: list[Example], prompt: str, share: float, seed: int) -> dict[Split, list[Example]]:
    """By the prompt as the row has it, so that another wording of all prompts holds out the same."""
    if len(rows) < 2:
        raise ValueError(f"{source} must hold at least two prompts, found {len(rows)}: one is held out.")
    salt = str(seed) if seed else ""
    ordered = sorted(rows, key=lambda e: hashlib.sha256((salt + e.row[prompt]).encode()).digest())
    held_out = min(max(1, int(len(ordered) * share)), len(ordered) - 1)
    return {"test": ordered[:held_out], "train": ordered[held_out:]}


def _check_disjoint(rows: dict[Split, list[Example]]) -> None:
    known = {e.prompt for e in rows["train"]}
    shared = [e.prompt for e in rows["test"] if e.prompt in known]
    if shared:
        first = shared[0] if len(shared[0]) <= 80 else shared[0][:80] + "..."
        raise ValueError(
            f"train and test must share no prompt, found {len(shared)} in both, the first {first!r}: remove them from "
            "one of the two."
        )
