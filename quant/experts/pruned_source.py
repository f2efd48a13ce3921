"""A GGUF model without some of its experts, as a source. All other rows are copied byte for byte, in any type.

Experts are stacked along the last dimension, so one expert is one run of rows in the file.
`quant.write.execute.quantize` writes the file and resumes an interrupted run.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from quant.experts.expert_tensors import in_one_row, sliced_layer
from quant.experts.prune_plan import PrunePlan
from quant.experts.pruned_metadata import PREFIX, KeptExperts, read_kept_experts
from quant.gguf import writer
from quant.gguf.writer import KeyValue, tensor_bytes
from quant.plan import QuantPlan, TensorPlan, make_plan
from quant.sources.source import GgufSource, Source, TensorSpec
from runtime.gguf.types import BY_NAME

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_GROUP_KEYS = ("expert_group_count", "expert_group_used_count")
_SIZE_LABEL = "general.size_label"


class DerivedSource(Source, ABC):
    """A source that returns stored rows, so that `quant.write.execute` copies them."""

    def __init__(self, source: GgufSource, tensors: tuple[TensorSpec, ...], metadata: tuple[KeyValue, ...]) -> None:
        super().__init__(source.architecture, tensors, metadata, name=source.name, files=source.files)
        self._source = source
        self._originals = {tensor.name: tensor for tensor in source.tensors}

    def file_plan(self) -> QuantPlan:
        """The plan of the file, with every tensor in its stored type. Its `bytes` are exact."""
        tensors = [
            TensorPlan(
                each.name, each.shape, each.stored, each.stored, "as it is", tensor_bytes(each.stored, each.shape)
            )
            for each in self.tensors
        ]
        number = self._source.card.metadata.get("general.file_type")
        return make_plan(tensors, self, number if number is None or isinstance(number, int) else 0)

    def read(self, tensor: TensorSpec, first: int, count: int) -> NDArray[np.float32]:
        """Rows as numbers, from any stored type."""
        from runtime.llama import dequantize_rows

        return dequantize_rows(BY_NAME[tensor.stored].number, self.stored_rows(tensor, first, count))

    @abstractmethod
    def stored_rows(self, tensor: TensorSpec, first: int, count: int) -> NDArray[np.uint8]:
        """Rows as in the new file, (count, bytes of a row)."""


class PrunedSource(DerivedSource):
    """`source` with the experts that `plan` keeps."""

    def __init__(self, source: GgufSource, plan: PrunePlan) -> None:
        self._plan = plan
        tensors = tuple(self._cut(tensor) for tensor in source.tensors)
        super().__init__(source, tensors, tuple(self._entries(source)))

    def stored_rows(self, tensor: TensorSpec, first: int, count: int) -> NDArray[np.uint8]:
        """Rows as in the new file, (count, bytes of a row)."""
        import numpy as np

        original, layer = self._originals[tensor.name], sliced_layer(tensor.name)
        if layer is None:
            return self._source.stored_rows(original, first, count)
        kept = self._plan.kept[layer]
        if in_one_row(tensor.name, tensor.shape):
            whole = self._source.stored_rows(original, 0, 1).reshape(self._plan.experts, -1)
            return whole[list(kept)].reshape(1, -1)[first : first + count]
        height = math.prod(tensor.shape[1:-1])
        parts = [
            self._source.stored_rows(original, start, rows) for start, rows in _runs(kept, height, first, first + count)
        ]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def _cut(self, tensor: TensorSpec) -> TensorSpec:
        if sliced_layer(tensor.name) is None:
            return tensor
        keep = self._plan.keep
        in_row = in_one_row(tensor.name, tensor.shape)
        shape = (keep, *tensor.shape[1:]) if in_row else (*tensor.shape[:-1], keep)
        return TensorSpec(tensor.name, shape, tensor.stored)

    def _entries(self, source: GgufSource) -> Iterator[KeyValue]:
        """The metadata of the model with corrected numbers of experts, and the keys of `pruned_metadata`."""
        plan, architecture = self._plan, source.architecture
        changed = {f"{architecture}.expert_count": plan.keep}
        if plan.active != plan.active_before:
            changed[f"{architecture}.expert_used_count"] = plan.active
        dropped = {f"{architecture}.{key}" for key in _GROUP_KEYS} if plan.groups == 1 else set[str]()
        length = f"{architecture}.expert_feed_forward_length"
        if plan.active != plan.active_before and length not in source.card.metadata:
            # Without this key, the engine divides the width of the layers by the number of experts per token.
            yield writer.u32(length, next(each.shape[0] for each in source.tensors if ".ffn_down_exps." in each.name))
        for entry in source.metadata:
            if entry.key in changed:
                yield writer.u32(entry.key, changed[entry.key])
            elif entry.key == _SIZE_LABEL:  # as in 256x20B
                yield writer.text(_SIZE_LABEL, self._size_label(str(source.card.metadata[_SIZE_LABEL])))
            elif entry.key not in dropped and not entry.key.startswith(PREFIX):
                yield entry
        yield from _from_original(plan, read_kept_experts(source.card)).entries()

    def _size_label(self, label: str) -> str:
        old = f"{self._plan.experts}x"
        return f"{self._plan.keep}x{label.removeprefix(old)}" if label.startswith(old) else label


def _from_original(plan: PrunePlan, earlier: KeptExperts | None) -> KeptExperts:
    """`plan` with the numbers of the first original, when the model was pruned `earlier`."""
    if earlier is None:
        return plan
    kept: Mapping[int, tuple[int, ...]] = plan.kept
    if set(earlier.kept) == set(kept):
        kept = {layer: tuple(earlier.kept[layer][n] for n in numbers) for layer, numbers in kept.items()}
    return KeptExperts(
        experts=earlier.experts,
        kept=kept,
        active_before=earlier.active_before,
        tasks=plan.tasks,
        profiles=plan.profiles,
        score=plan.score,
        grouping=plan.grouping,
        lost_weight=plan.lost_weight,
    )


def _runs(kept: Sequence[int], height: int, first: int, end: int) -> Iterator[tuple[int, int]]:
    """Rows `first` to `end` of the kept experts as runs (start, count) of the original's rows. Adjacent rows are one
    run."""
    start = count = 0
    while first < end:
        number, row = divmod(first, height)
        rows = min(height - row, end - first)
        at = kept[number] * height + row
        if count and start + count == at:
            count += rows
        else:
            if count:
                yield start, count
            start, count = at, rows
        first += rows
    if count:
        yield start, count
