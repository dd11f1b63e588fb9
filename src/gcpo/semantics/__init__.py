"""From text or hidden states to what signals take: answers to labels, states and sentences to vectors."""

from gcpo.semantics.answers import extract_answer, fold
from gcpo.semantics.clustering import cluster_by_cosine, connected_components
from gcpo.semantics.embedder import TextEmbedder
from gcpo.semantics.encoder import SentenceEncoder, check_embedder, text_embedder
from gcpo.semantics.entailment import BidirectionalEntailment, Meanings
from gcpo.semantics.equivalence import EQUIVALENCES, answer_labels, check_equivalence, equal_math
from gcpo.semantics.hashed import HashedNgrams
from gcpo.semantics.pooling import pool, pool_steps, step_index
from gcpo.semantics.projection import plane
from gcpo.semantics.steps import STEPS, check_steps, split_steps

__all__ = [
    "EQUIVALENCES",
    "STEPS",
    "BidirectionalEntailment",
    "HashedNgrams",
    "Meanings",
    "SentenceEncoder",
    "TextEmbedder",
    "answer_labels",
    "check_embedder",
    "check_equivalence",
    "check_steps",
    "cluster_by_cosine",
    "connected_components",
    "equal_math",
    "extract_answer",
    "fold",
    "plane",
    "pool",
    "pool_steps",
    "split_steps",
    "step_index",
    "text_embedder",
]
