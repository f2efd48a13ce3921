"""How much the error of each tensor changes the model's output. `quant.to_a_size.allocate` weighs it against bytes.

The errors of `quant.to_a_size.type_errors` tell how much a type changes a tensor. The sensitivity of a group of tensors
is a KL divergence of the model from its source: with only this group in a coarse type and all else in a fine type, less
the divergence with everything fine. It is measured for two coarse types; between them it follows a power of the error.
Groups are taken as independent of one another.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from quant.measure.chunks import ChunkOptions, Text, settle_threads
from quant.measure.divergence import Base
from quant.plan import QuantPlan, TensorPlan, fitting_type, make_plan, planned
from quant.recipe.mixtures import kept_type, quantizable, unquantized
from quant.sources.source import Source, TensorSpec
from quant.to_a_size.type_errors import Errors
from quant.write.execute import quantize
from quant.write.scratch import scratch_folder
from runtime.base.disk_errors import disk_errors
from runtime.base.errors import EngineFailed, Incompatible
from runtime.base.events import Progress
from runtime.base.keyed_cache import KeyedCache, finite
from runtime.base.run import Run
from runtime.gguf.reader import read_card
from runtime.gguf.tensor_name import parse_name
from runtime.placement.trial import try_file

# Coarse enough to be seen above the noise of everything else, and within what budgets lead to.
PROBES = ("Q2_K", "Q4_K")
_FINE = "Q8_0"
_F16_FILE = 1  # LLAMA_FTYPE_MOSTLY_F16 (llama.h): temporary files are called something
# Twice the error is twice the divergence as long as both are small; measured powers beyond these are noise.
_POWERS = (0.7, 1.6)
_NOISE = 1e-9  # nats: less than what any measurement can tell from nothing
_NAME = 60  # characters of the model's name in that of the file, which may have 255 bytes


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors of one kind in neighbouring layers, which are measured together."""

    name: str
    tensors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """What was measured of a group: pairs of error (the mean of its tensors) and divergence in nats, both rising."""

    points: tuple[tuple[float, float], ...]

    def divergence(self, error: float) -> float:
        """The divergence at an error: a power law through the two nearest points."""
        if error <= 0:
            return 0.0
        points = self.points
        if len(points) == 1:
            return points[0][1] * error / points[0][0]
        last = len(points) - 1
        right = next((n for n in range(1, last) if error <= points[n][0]), last)
        (x0, y0), (x1, y1) = points[right - 1], points[right]
        power = min(max(math.log(y1 / y0) / math.log(x1 / x0), _POWERS[0]), _POWERS[1])
        x, y = (x0, y0) if error <= x0 else (x1, y1)
        return float(y * (error / x) ** power)


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """`curves` by the name of a group. `floor` is a divergence that no choice of types avoids: quantized weights are
    multiplied with activations of 8 bits."""

    groups: tuple[Group, ...]
    curves: Mapping[str, Curve]
    floor: float = 0.0

    def loss(self, errors: Errors) -> dict[str, dict[str, float]]:
        """The divergence that each tensor adds in each type: an equal share of its group's."""
        return {
            name: {kind: self.curves[group.name].divergence(error) / len(group.tensors) for kind, error in each.items()}
            for group in self.groups
            for name, each in ((name, errors[name]) for name in group.tensors)
        }


def groups(tensors: Sequence[TensorSpec], most: int = 64) -> tuple[Group, ...]:
    """Groups of tensors of one kind and layer. Neighbouring layers are merged where there are more than `most`."""
    names = [(tensor.name, parse_name(tensor.name)) for tensor in tensors if quantizable(tensor)]
    layers = 1 + max((parsed.layer or 0 for _, parsed in names), default=0)

    def divided(parts: int) -> dict[str, list[str]]:
        made: dict[str, list[str]] = {}
        for name, parsed in names:
            part = "" if parsed.layer is None else f" {parsed.layer * parts // layers + 1}/{parts}"
            made.setdefault(f"{parsed.part}{part}", []).append(name)
        return made

    parts = next((parts for parts in range(layers, 1, -1) if len(divided(parts)) <= most), 1)
    return tuple(Group(name, tuple(members)) for name, members in divided(parts).items())


def measure(
    source: Source,
    errors: Errors,
    texts: Sequence[Text],
    cache: Path,
    chunk_options: ChunkOptions,
    run: Run,
    *,
    most_groups: int = 64,
    probes: Sequence[str] = PROBES,
) -> Sensitivity:
    """How sensitive each group is.

    Each figure is written to the folder `cache` at once. A later call with the same weights, text and importance
    reads it from there, so a stopped run continues. A temporary model is written to `cache` for each figure.

    Raises DoesNotFit and EngineFailed where the model cannot be evaluated on this machine, DsrError (a folder that
    cannot be written), UsageError (too little text), Aborted.
    """
    from runtime.llama import Scorer

    found_groups = groups(source.tensors, most_groups)
    key = _digest(source, errors, texts, chunk_options)
    file = cache / f"{source.name[:_NAME]}-{key[:16]}.json"
    known = KeyedCache(file, finite)
    probed = {
        (group, probe): error
        for group in found_groups
        for probe in probes
        if (error := _error(source, group, errors, probe)) > 0  # nothing is lost where rows fit no coarse type
    }
    wanted = {_figure(group, probe): (group, probe) for group, probe in probed}
    names = ("fine", *wanted)
    divergences = {name: value for name in names if (value := known.get(name)) is not None}
    missing = [name for name in names if name not in divergences]
    if missing:
        with disk_errors(file), scratch_folder(cache, ".sensitivity-") as folder, Base(folder) as base:
            path = folder / "model.gguf"

            def write(plan: QuantPlan, threads: int) -> None:
                quantize(source, plan, path, Run(run.stop, threads=threads), force=True, allow_requantize=True)

            write(unquantized(source), run.threads or 1)
            try:
                try_file(read_card(path), run)
            except Incompatible as error:  # the name of a temporary file tells nobody anything
                reason = error.message.removeprefix(f"{path}: ")
                raise EngineFailed(f"{source.name}: {reason}", hint=error.hint) from error
            with Scorer(path, window=chunk_options.context, run=run) as model:
                threads = settle_threads(model, run.threads)
                base.record(model, texts, chunk_options, name="the source", listen=run.listen)
            run.listen(Progress("measuring", "sensitivity", 0, len(missing), "steps"))
            for number, figure in enumerate(missing, 1):
                group, probe = wanted.get(figure, (Group("", ()), _FINE))
                write(_coarse_plan(source, dict.fromkeys(group.tensors, probe)), threads)
                with Scorer(path, window=chunk_options.context, run=Run(run.stop, threads=threads)) as model:
                    divergences[figure] = base.compare(model).kld.value
                known.put({figure: divergences[figure]})
                run.listen(Progress("measuring", "sensitivity", number, len(missing), "steps"))
    fine = divergences["fine"]
    curves = {
        group.name: _curve(
            [(error, divergences[_figure(*each)] - fine) for each, error in probed.items() if each[0] == group]
        )
        for group in found_groups
    }
    found = Sensitivity(found_groups, curves)
    weights_alone = sum(each.get(_FINE, 0.0) for each in found.loss(errors).values())
    return replace(found, floor=max(fine - weights_alone, 0.0))


def _figure(group: Group, probe: str) -> str:
    members = hashlib.sha256("\0".join(group.tensors).encode()).hexdigest()[:8]
    return f"{group.name} {probe} {members}"


def _coarse_plan(source: Source, coarse: Mapping[str, str]) -> QuantPlan:
    """Every tensor in the fine type, but those named in `coarse` in their coarse type."""

    def target(tensor: TensorSpec) -> TensorPlan:
        wanted = _probed_type(tensor, coarse.get(tensor.name, _FINE)) if quantizable(tensor) else kept_type(tensor)
        return planned(tensor, wanted, "measuring")

    return make_plan(map(target, source.tensors), source, _F16_FILE)


def _error(source: Source, group: Group, errors: Errors, probe: str) -> float:
    types = {tensor.name: _probed_type(tensor, probe) for tensor in source.tensors if tensor.name in group.tensors}
    return sum(errors[name][kind] for name, kind in types.items()) / len(types)


def _probed_type(tensor: TensorSpec, probe: str) -> str:
    """The type that stands for `probe` in this tensor: its own type where its rows do not divide into blocks."""
    fitting = fitting_type(probe, tensor.row_length)
    return kept_type(tensor) if fitting == "F16" else fitting


def _curve(measured: Iterable[tuple[float, float]]) -> Curve:
    """The curve through what was measured, at errors above 0. A divergence at or below that of the fine
    types is noise: then it follows from the largest."""
    rising = sorted(measured)
    if not rising:
        return Curve(((1.0, _NOISE),))
    error, divergence = max(rising, key=lambda point: point[1])
    divergence = max(divergence, _NOISE)
    least = [max(y, divergence * (x / error) ** _POWERS[1]) for x, y in rising]
    points: list[tuple[float, float]] = []
    for (x, _), y in zip(rising, least, strict=True):
        if not points or (x > points[-1][0] * 1.01 and y > points[-1][1]):
            points.append((x, y))
    return Curve(tuple(points))


def _digest(source: Source, errors: Errors, texts: Sequence[Text], chunk_options: ChunkOptions) -> str:
    """A digest of all that a figure depends on. The errors stand for the weights, since they follow from their rows."""
    out = hashlib.sha256(f"sensitivity 2\0{chunk_options.limit}\0{chunk_options.context}\0{_FINE}".encode())
    for entry in source.metadata:
        out.update(f"{entry.key}\0{len(entry.encoded)}\0".encode() + entry.encoded)
    for tensor in source.tensors:
        out.update(f"{tensor.name}\0{tensor.shape}\0{tensor.stored}\0{errors.get(tensor.name)}\n".encode())
    importance = source.importance or {}
    for name in sorted(importance):
        out.update(f"{name}\0".encode() + np.ascontiguousarray(importance[name], "<f4").tobytes())
    for text in texts:
        out.update(hashlib.sha256(text.content.encode("utf-8", "surrogatepass")).digest())
    return out.hexdigest()
