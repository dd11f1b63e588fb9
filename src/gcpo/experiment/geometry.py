"""What signals need to know of sampled responses, from where the settings of a probe say."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from gcpo.experiment.settings import ProbeSettings, UsageError
from gcpo.integrations.steering import measure_texts
from gcpo.policies.sampling import Sampled
from gcpo.semantics import check_equivalence, check_steps, extract_answer, text_embedder
from gcpo.semantics.clustering import alike_by_cosine
from gcpo.semantics.equivalence import equal_answers
from gcpo.semantics.policy import MEASURED, Measure, backbone_of, counts_padding

_POINTS = 8


class Geometry:
    """Embeddings, points and scores of responses, and which of a group mean the same.

    Args:
        settings: Of the probe.
        tokenizer: The policy's.

    Raises:
        UsageError: The embedder cannot be had, or a setting has a value it cannot have.
    """

    def __init__(self, settings: ProbeSettings, tokenizer: Any) -> None:
        self._settings = settings
        try:
            check_equivalence(settings.equivalence)
            check_steps(settings.steps)
            self._embedder = None if settings.embedder == "policy" else text_embedder(settings.embedder)
        except (ValueError, ImportError) as error:
            raise UsageError(str(error)) from error
        self._by_text = {"embeddings", "points"} if self._embedder else set()
        wanted = MEASURED - self._by_text
        self._measure = Measure(tokenizer, wanted, _POINTS, batch_size=settings.batch_size, steps=settings.steps)

    def __call__(self, model: Any, said: Sampled, G: int) -> dict[str, Tensor]:
        """Of N responses in groups of G: (N / G, G, ...) each, on the CPU; ``same`` (N / G, G, G)."""
        if self._measure.placed is None:  # one model for all calls
            self._measure.placed = counts_padding(model)  # as the responses were drawn
        measured = self._measure(model, backbone_of(model), *said[:4])
        if self._embedder:
            measured |= measure_texts(self._embedder, said.texts, self._by_text, _POINTS, self._settings.steps)
        inputs = {name: value.unflatten(0, (-1, G)).cpu() for name, value in measured.items()}
        return inputs | {"same": self._same(said.texts, inputs, G)}

    def _same(self, texts: Sequence[str], inputs: dict[str, Tensor], G: int) -> Bool[Tensor, "B G G"]:
        """Which responses mean the same; meanings are the components of those that a signal sees."""
        if (threshold := check_equivalence(self._settings.equivalence)) is not None:
            return alike_by_cosine(inputs["embeddings"], threshold)
        return equal_answers([extract_answer(text) for text in texts], G, self._settings.equivalence)
