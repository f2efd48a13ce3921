"""Matches a question with the stored tasks, by the logits of the first router alone.

The idea is PreMoe's (arXiv 2505.17639, "task-adaptive expert retrieval"): the first router already separates tasks, and
computing it costs almost nothing. dsr differs in two ways. The key of a question is the mean and the standard deviation
of all logits, not the mean logit of each token's best expert. dsr compares it with every question of a profile, not
with their mean, because the questions of one task can be far apart. A question that is close to no stored question
matches no task.

A model that ends at its first router, `RouterProbe`, computes these logits with a few of the model's bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.experts.expert_tensors import expert_layers
from quant.experts.pruned_source import DerivedSource
from quant.gguf.writer import KeyValue, tensor_bytes, u32
from quant.plan import fitting_type
from quant.sources.source import GgufSource, TensorSpec

# The limit of a task is this factor times its spread: the largest distance of one of its questions to the nearest
# other one. Without slack, one of n + 1 questions of the task would be beyond the limit by chance.
SLACK = 1.5
# Fewer questions do not show the spread of a task.
MIN_QUESTIONS = 3
# A task matches from this certainty on; here the question is as likely to belong to no task.
MIN_CERTAINTY = 0.5
# How fast the certainty falls with the distance: 0.98 at half the limit when no other task is near.
_STEEPNESS = 5.2
_BLANK_ROLES = ("routed experts", "shared experts")
_BLANK_TYPE = "Q2_K"  # the smallest type that every backend supports
_ARRAY, _STRING = 9, 8  # types of metadata values in GGUF


@dataclass(frozen=True, slots=True)
class Match:
    """The matching task, None for no match.

    `ranking` has all comparable tasks with their certainties, the most likely first. `certainty` is that of the first
    task: 1 at a stored question, `MIN_CERTAINTY` at the limit.
    """

    task: str | None
    certainty: float
    ranking: tuple[tuple[str, float], ...]


def question_key(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """The features of one question: (tokens, experts) raw logits of the first router -> (2 * experts), their mean over
    the tokens and their standard deviation."""
    return np.concatenate([logits.mean(axis=0), logits.std(axis=0)]).astype(np.float32)


def match_task(query: NDArray[np.float32], keys: Mapping[str, NDArray[np.float32]]) -> Match:
    """Finds the task of a question. `keys`: by task (questions, features), made by `question_key`.

    The nearest stored question (L2) decides. The limit of its distance comes from the distances within its task.
    Tasks with fewer than MIN_QUESTIONS different questions are not compared.
    """
    limits = {task: _limit(questions) for task, questions in keys.items()}
    distances = {
        task: float(np.linalg.norm(keys[task] - query, axis=1).min()) for task, limit in limits.items() if limit
    }
    if not distances:
        return Match(None, 0.0, ())
    limit = limits[min(distances, key=distances.__getitem__)]
    likeness = {task: math.exp(-_STEEPNESS * (distance / limit) ** 2) for task, distance in distances.items()}
    whole = sum(likeness.values()) + math.exp(-_STEEPNESS)
    ranked = sorted(((task, value / whole) for task, value in likeness.items()), key=lambda pair: (-pair[1], pair[0]))
    task, certainty = ranked[0]
    return Match(task if certainty >= MIN_CERTAINTY else None, certainty, tuple(ranked))


def _limit(questions: NDArray[np.float32]) -> float:
    """The largest distance to the nearest stored question that still matches this task; 0 for too few questions."""
    different = np.unique(questions, axis=0)
    if len(different) < MIN_QUESTIONS:
        return 0.0
    apart = np.linalg.norm(different[:, None] - different[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    return SLACK * float(apart.min(axis=1).max())


class RouterProbe(DerivedSource):
    """A model that ends at the first router of `source`.

    The engine maps a whole file and asks the system to read all of it, so opening a large model for its first layers
    would be slow. A probe has copies of these layers. The engine also requires the experts of the last of them and the
    output matrix, which are never computed: the probe has zeros there, in a small type.
    """

    def __init__(self, source: GgufSource) -> None:
        """Raises Incompatible for a model without routers."""
        self._last = expert_layers(source.card)[0]
        tensors = tuple(self._given(tensor) for tensor in source.tensors if (tensor.layer or 0) <= self._last)
        super().__init__(source, tensors, tuple(self._entries(source)))

    def stored_rows(self, tensor: TensorSpec, first: int, count: int) -> NDArray[np.uint8]:
        """Rows as in the new file, (count, bytes of a row)."""
        if self._is_blank(tensor):
            return np.zeros((count, tensor_bytes(tensor.stored, (tensor.row_length,))), np.uint8)
        return self._source.stored_rows(self._originals[tensor.name], first, count)

    def _is_blank(self, tensor: TensorSpec) -> bool:
        return tensor.name == "output.weight" or (tensor.role in _BLANK_ROLES and tensor.name.endswith(".weight"))

    def _given(self, tensor: TensorSpec) -> TensorSpec:
        if not self._is_blank(tensor):
            return tensor
        small = fitting_type(_BLANK_TYPE, tensor.row_length)
        smaller = tensor_bytes(small, tensor.shape) < tensor_bytes(tensor.stored, tensor.shape)
        return TensorSpec(tensor.name, tensor.shape, small if smaller else tensor.stored)

    def _entries(self, source: GgufSource) -> Iterator[KeyValue]:
        architecture, count = source.architecture, self._last + 1
        for entry in source.metadata:
            if entry.key == f"{architecture}.block_count":
                yield u32(entry.key, count)
            elif entry.key != f"{architecture}.nextn_predict_layers":
                own = entry.key.startswith(f"{architecture}.")
                yield _first(entry, count, source.card.layers) if own else entry


def _first(entry: KeyValue, count: int, layers: int) -> KeyValue:
    """An array with one item per layer, cut to the first `count` items; other entries unchanged."""
    kind = struct.unpack_from("<I", entry.encoded)[0]
    if kind != _ARRAY:
        return entry
    element, length = struct.unpack_from("<IQ", entry.encoded, 4)
    if length != layers or element in (_ARRAY, _STRING):
        return entry
    width = (len(entry.encoded) - 16) // length
    cut = struct.pack("<IIQ", _ARRAY, element, count) + entry.encoded[16 : 16 + count * width]
    return KeyValue(entry.key, cut)
