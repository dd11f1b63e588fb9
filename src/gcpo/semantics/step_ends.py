"""Which tokens of a response end a step, by the same rule as ``gcpo.semantics.steps`` has for texts."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from gcpo.semantics.steps import check_steps, sentence_starts, splits_sentences


class StepEnds:
    """Finds the tokens that end a step; texts of tokens are learned as they come up.

    A token with a line break ends a line; a sentence ends with the last token before the next one's first.

    Args:
        tokenizer: A transformers tokenizer.
        by: What a step is, one of ``STEPS``.

    Raises:
        ValueError: ``by`` is none of them.
    """

    def __init__(self, tokenizer: Any, by: str = "auto") -> None:
        check_steps(by)
        self._tokenizer, self._by = tokenizer, by
        self._known: dict[int, str] = {}

    def __call__(self, ids: Int[Tensor, "N T"], mask: Bool[Tensor, "N T"]) -> Bool[Tensor, "N T"]:
        """Where a token ends a step.

        Args:
            ids: Tokens of the responses.
            mask: Which exist.
        """
        here = ids.cpu()  # texts are there, and a row at a time
        distinct, place = here.unique(return_inverse=True)
        breaks = ["\n" in self._text(token) for token in distinct.tolist()]
        ends = torch.tensor(breaks, dtype=torch.bool)[place]
        if self._by != "lines":
            for row, (tokens, exist) in enumerate(zip(here.tolist(), mask.tolist(), strict=True)):
                texts = [self._text(t) if there else "" for t, there in zip(tokens, exist, strict=True)]
                ends[row, [place - 1 for place in self._sentences(texts)]] = True
        return ends.to(ids.device)

    def _sentences(self, texts: Sequence[str]) -> Iterator[int]:
        """The places of the tokens that begin a sentence within a line: each holds its first character."""
        lines, before = "".join(texts).split("\n"), 0
        if not splits_sentences(self._by, sum(1 for line in lines if line.strip())):
            return
        begins = list(accumulate(map(len, texts[:-1]), initial=0))
        for line in lines:
            places = (bisect_right(begins, before + start) - 1 for start in sentence_starts(line))
            yield from (place for place in places if place)
            before += len(line) + 1

    def _text(self, token: int) -> str:
        """What a token says within a text; alone it may lose the space before its word."""
        if token not in self._known:
            decode = self._tokenizer.decode
            once, twice = (decode([token] * n, skip_special_tokens=True) for n in (1, 2))
            self._known[token] = twice[len(once) :]
        return self._known[token]
