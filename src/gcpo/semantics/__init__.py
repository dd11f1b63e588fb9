"""From text or hidden states to what signals take: answers to labels, states and sentences to vectors."""

from gcpo.semantics.answers import answer_labels, extract_answer, fold
from gcpo.semantics.encoder import SentenceEncoder, split_steps
from gcpo.semantics.pooling import pool, pool_steps, step_index
from gcpo.semantics.projection import plane

__all__ = [
    "SentenceEncoder",
    "answer_labels",
    "extract_answer",
    "fold",
    "plane",
    "pool",
    "pool_steps",
    "split_steps",
    "step_index",
]
