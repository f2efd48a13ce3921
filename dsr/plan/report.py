"""A plan as text: facts, a table of devices, a command for llama.cpp."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable

from dsr.loading.reach import yarn_note
from dsr.models.description import short_number
from dsr.models.reach import DEFAULT_CONTEXT, describe_reach
from dsr.plan.decide import DevicePart, Plan
from dsr.plan.from_disk import EQUAL_USE
from dsr.plan.runnable import COMFORTABLE, RunnableModel
from runtime.base.types import ByteCount
from runtime.machine.machine import Machine
from runtime.placement.memory import warning

Cells = tuple[str, ...]

_CLEARLY_SLOWER = 0.9
_ANSWER = 1000  # tokens: a short thought and its answer
RUNNABLE_HEADER = ("MODEL", "QUANT", "MEMORY", "TOKENS/S", "ALSO FITS")
FROM_DISK = "from disk"
RUNNABLE_LEGEND = (
    f"with a context of {DEFAULT_CONTEXT} tokens; models below {COMFORTABLE:.0f} tokens/s come last; "
    "details: dsr plan MODEL"
)


def facts(plan: Plan) -> list[tuple[str, str]]:
    """Label and value of every line above the table."""
    model, request = plan.model, plan.placement.request
    card = model.card
    quant = f", {model.quant}" if model.quant else ""
    active = f", {short_number(card.active_parameters)} of them for each token" if card.experts else ""
    samples = f" for {request.samples} samples" if request.samples > 1 else ""
    rows = [
        (
            "model",
            f"{model.name}{quant}: {card.weights_size} in {card.layers} layers, "
            f"{short_number(card.parameters)} weights{active}",
        )
    ]
    if model.origin:
        rows.append(("based on", model.origin))
    if model.why:
        rows.append(("chosen", model.why))
    if (note := warning(card)) is not None:
        rows.append(("note", note))
    if plan.yarn is not None:
        rows.append(("note", yarn_note(card, model.entry, plan.yarn)))
    full = ", all tokens in every layer" if request.kv_full else ""
    usual = request.context == DEFAULT_CONTEXT < card.context_length and request.samples == 1
    more = "; for a longer one: --ctx-size N" if usual else ""
    cache = f"KV cache: {request.kv_type}{full}"
    return [
        *rows,
        ("reach", describe_reach(card, model.entry)),
        ("machine", describe_machine(plan.machine)),
        (
            "fits",
            f"{_how(plan)}, with a context of {request.context} tokens{samples} ({cache}){more}",
        ),
        *_from_disk(plan),
        ("speed", f"{describe_speed(plan)}"),
        ("limited by", plan.binding),
        ("first token", f"{seconds(plan.first_token_seconds)} after a prompt of 512 tokens"),
        (
            "loading",
            seconds(plan.load_seconds)
            if plan.machine.disk_read
            else "unknown, because the speed of the disk is unknown",
        ),
    ]


def _how(plan: Plan) -> str:
    free = plan.machine.usable().memory_free
    if plan.from_disk is None:
        return f"yes: {plan.memory} of the {free} that a model may use"
    disk = plan.from_disk.plan
    return f"no, it runs from the disk: {disk.resident} stay in memory, and {disk.memory} cache {disk.streamed}"


def _from_disk(plan: Plan) -> list[tuple[str, str]]:
    """The rows of a model that runs from the disk."""
    if (disk := plan.from_disk) is None:
        return []
    step, use = disk.step, f" ({disk.use})" if disk.plan.routed else ""
    if disk.use != EQUAL_USE:
        use = f" ({disk.use}; {disk.equal_use.hit_rate:.0%} with {EQUAL_USE})"
    read, speed = ByteCount(round(step.read / step.tokens)), ByteCount(round(disk.disk_read))
    return [
        ("hits", f"{step.hit_rate:.0%} of the bytes that a token uses are in memory{use}"),
        ("disk", f"{read} for each token, at {speed}/s: at most {_bound(step.disk_bound)}"),
        ("compute", f"at most {_bound(step.compute_bound)}"),
        ("more memory", f"{figure(disk.twice.tokens_per_second)} tokens/s with twice as much"),
    ]


def _bound(tokens_per_second: float) -> str:
    return f"{figure(tokens_per_second)} tokens/s" if math.isfinite(tokens_per_second) else "any speed"


def describe_speed(plan: Plan) -> str:
    """'41 tokens/s: 1000 tokens take 24 s'; of several samples also the speed of each."""
    speed, samples = plan.tokens_per_second, plan.placement.request.samples
    if samples > 1:
        text = f"{figure(speed)} tokens/s of all {samples} samples together, {figure(speed / samples)} of each"
    else:
        text = f"{figure(speed)} tokens/s: {_ANSWER} tokens take {seconds(_ANSWER / speed)}"
    full = plan.full_tokens_per_second
    return f"{text}; {figure(full)} tokens/s with a full context" if full < speed * _CLEARLY_SLOWER else text


def table(plan: Plan, columns: int | None) -> tuple[Cells, list[Cells], tuple[int, ...], list[Cells]]:
    """Header, rows, the columns of numbers, names of devices. Columns of experts only where the model has some.

    Where the terminal has too few `columns`, devices are numbered, and the last result has their names.
    """
    experts = any(each.expert_weights for each in plan.devices)
    header = ["DEVICE", "LAYERS", "WEIGHTS", "CACHE", "BUFFERS", "TIME"]
    if experts:
        header[3:3] = ["EXPERTS", "OF"]
    rows = [_row(each, experts) for each in plan.devices]
    names: list[Cells] = []
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    if columns is not None and sum(widths) + 2 * (len(widths) - 1) > columns:
        names = [(str(number), row[0]) for number, row in enumerate(rows, 1)]
        rows = [(number, *row[1:]) for (number, _), row in zip(names, rows, strict=True)]
    return tuple(header), rows, tuple(range(2, len(header))), names


def command(plan: Plan) -> str:
    """The plan for llama.cpp's own programs."""
    file = plan.model.card.path
    name = file.name if file.suffix == ".gguf" else "MODEL.gguf"
    return f"llama-server -m {shlex.quote(name)} {' '.join(plan.flags)}"


def _row(held: DevicePart, experts: bool) -> Cells:
    where = _where(held.name, held.node)
    layers = " ".join(filter(None, (ranges(held.layers), "head" if held.head else "")))
    of_experts = (_size(held.expert_weights), ranges(held.experts) or "-") if experts else ()
    sizes = (_size(held.weights), *of_experts, _size(held.kv_cache), _size(held.compute))
    return where, layers or "embedding", *sizes, f"{held.share:.0%}"


def describe_machine(machine: Machine) -> str:
    """'desktop: CPU 24.0 GiB free, CUDA0 11.2 GiB free'."""
    devices = (f"{_where(device.name, device.node)} {ByteCount(device.memory_free)} free" for device in machine.devices)
    return f"{machine.name}: {', '.join(devices)}"


def runnable_row(row: RunnableModel) -> Cells:
    about = "~" if row.estimated else ""
    last = FROM_DISK if row.from_disk else ", ".join(row.larger)
    return row.name, row.quant, about + str(row.memory), about + figure(row.tokens_per_second), last


def _where(device: str, node: str) -> str:
    return device if node in device else f"{device} at {node}"


def ranges(numbers: Iterable[int]) -> str:
    """(0, 1, 2, 5) -> '0-2,5'."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)


def figure(value: float) -> str:
    """As many digits as a prediction deserves: 0.042, 0.8, 4.2, 42, 420."""
    return f"{value:.2g}" if value < 99.5 else f"{round(value, -1):.0f}"


def seconds(value: float) -> str:
    """0.004 -> '4 ms'; 0.5 -> '0.5 s'; 90 -> '90 s'; 600 -> '10 min'; 9000 -> '2.5 h'."""
    for limit, unit, scale in ((0.1, "ms", 1e-3), (120, "s", 1.0), (7200, "min", 60.0), (172800, "h", 3600.0)):
        if value < limit:
            return f"{figure(value / scale)} {unit}"
    return f"{figure(value / 86400)} days"


def _size(count: int) -> str:
    return str(ByteCount(count)) if count else "-"
