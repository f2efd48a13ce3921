"""`dsr bench all` as tables and as a document."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from dsr.records import Conditions, Figure
from dsr.services.bench.files import IMATRIX_CHUNKS
from dsr.services.bench.orderings import CLOSE, orderings
from dsr.services.bench.whole import ITSELF, SPEED, File, Subject, Whole
from dsr.services.experts import bench_report as experts_report
from dsr.services.reason import report as reason_report
from runtime.types import ByteCount
from runtime.words import counted

_PROMPT, _DECODED, _VOTES = f"pp{SPEED.prompts[0]}", f"tg{SPEED.generated[0]}", f"votes {SPEED.votes[0]}"

# How a reader gets the table of the strategies by itself.
_ALONE = "dsr bench reason {}"

HEADER = ("file", "size", "bits", "KLD", "perplexity", "same top", "right", "95 %")
COST = ("file", _PROMPT, _DECODED, _VOTES, "memory", "predicted")
ORDERINGS = ("what the papers show", "published", "measured here", "verdict")
RIGHT = range(1, max(len(HEADER), len(COST)))
# Below the tables, for whoever sees them for the first time.
LEGEND = (
    "bits: per weight; KLD: from the reference, nats per token; same top: percent of tokens where both find the same "
    f"likeliest; right: percent, drawn greedily; {_PROMPT}, {_DECODED}, {_VOTES}: tokens per second, as in dsr bench "
    "speed; ±: one standard error"
)


def table(subject: Subject) -> list[tuple[str, ...]]:
    """Size and quality, a row for each file."""
    return [
        (
            file.recipe or file.name,
            str(ByteCount(file.size)),
            f"{file.bits_per_weight:.2f}",
            _quality(file, "kld_mean"),
            _quality(file, "ppl"),
            f"{100 * file.quality.figures['top1_agreement'].mean:.1f}" if file.quality else "",
            f"{100 * file.answers.accuracy:.1f}" if file.answers else "",
            f"{100 * file.answers.low:.0f}-{100 * file.answers.high:.0f}" if file.answers else "",
        )
        for file in subject.files
    ]


def costs(subject: Subject) -> list[tuple[str, ...]]:
    """Speed and memory, a row for each file."""
    return [
        (
            file.recipe or file.name,
            *(_speed(file, test) for test in (_PROMPT, _DECODED, _VOTES)),
            *(_memory(file, name) for name in ("bytes", "predicted_bytes")),
        )
        for file in subject.files
    ]


def compared(subject: Subject) -> list[tuple[str, ...]]:
    return [(each.claim, each.published, each.measured, each.verdict) for each in orderings(subject)]


def more(subject: Subject) -> Iterator[tuple[str, Sequence[str], Sequence[Sequence[str]], Sequence[int]]]:
    """Name, header, rows and the columns to the right, of what was measured with the model itself."""
    if subject.strategies is not None:
        bench = replace(subject.strategies, model=subject.name)
        yield reason_report.title(bench), reason_report.HEADER, reason_report.table(bench), reason_report.RIGHT
    if subject.experts is not None:
        pruned = replace(subject.experts, model=subject.name)
        yield experts_report.title(pruned), experts_report.HEADER, experts_report.table(pruned), experts_report.RIGHT
    if orderings(subject):
        rows = [(each.claim, each.verdict) for each in orderings(subject)]
        yield "what the papers show, and whether it is seen", ("ordering", "verdict"), rows, ()


def title(subject: Subject) -> str:
    words = f"{subject.name}: {counted(len(subject.files), 'file')} against {subject.against}"
    questions = max((len(file.answers.solved) for file in subject.files if file.answers), default=0)
    return words if not questions else f"{words}, {counted(questions, 'question')} of {subject.suite}"


def warnings(whole: Whole) -> list[str]:
    """What a reader must know."""
    told = [f"{model} was not measured: {error.message}" for model, error in whole.failed]
    told += [f"{subject.name}, {what}: {why}" for subject in whole.subjects for what, why in subject.left_out]
    if whole.interrupted:
        told.append("stopped: the same command goes on")
    return told


def disturbances(whole: Whole) -> str:
    """How much other work there was while it was measured, in a sentence; "" before anything was."""
    loads = sorted(row.conditions.load for row in whole.rows)
    if not loads:
        return ""
    doubtful = sum(bool(row.conditions.disturbed) for row in whole.rows)
    middle = loads[len(loads) // 2]
    return (
        f"other work took {100 * middle:.0f} % of the processor in the median, {100 * loads[-1]:.0f} % at most; "
        f"{doubtful} of {counted(len(loads), 'measurement')} were disturbed"
    )


def as_markdown(whole: Whole, command: str, date: str, note: str = "") -> str:
    """The document: what was measured and how, then every model with its tables. `note` is the author's own."""
    parts = ["# What files, strategies and pruning are worth", "", f"    {command}", ""]
    parts += [f"Made {date} by this command, which goes on where it is stopped{_where(whole)}.", ""]
    parts += [note, ""] if note else []
    if disturbances(whole):
        words = disturbances(whole)
        parts += [f"{words[0].upper()}{words[1:]}: speeds are noisy, and memory, accuracy and KLD are not.", ""]
    told = warnings(whole)
    parts += [*(f"- {each}" for each in told), *([""] if told else [])]
    for subject in whole.subjects:
        parts += _section(subject)
    return "\n".join(parts).rstrip() + "\n"


def _where(whole: Whole) -> str:
    conditions: Conditions | None = next((row.conditions for row in whole.rows), None)
    if conditions is None:
        return ""
    return (
        f", on {conditions.processor}, {counted(conditions.cores, 'core')}, {ByteCount(conditions.memory)}, "
        f"dsr {conditions.dsr}, llama-cpp-python {conditions.engine}"
    )


def _section(subject: Subject) -> Iterator[str]:
    yield from (f"## {subject.name}", "")
    yield from _about(subject)
    yield from ("", *_markdown(HEADER, table(subject)), "", *_markdown(COST, costs(subject)), "")
    yield f"- {LEGEND}."
    yield "- The 95 % interval of accuracy is Wilson's. Memory: the peak of a process, beside what was predicted."
    found = orderings(subject)
    if found:
        yield from ("", "### Are the papers' orderings seen?", "")
        yield from _markdown(ORDERINGS, compared(subject), right=())
        yield ""
        for source in dict.fromkeys(each.source for each in found):
            yield f"- {source}: {', '.join(each.claim.partition(':')[0] for each in found if each.source == source)}."
        yield (
            "- *seen*: the interval of 95 % of the measured difference lies wholly on the published side, for 'within' "
            f"inside of {100 * CLOSE:.0f} points or percent. *not seen* may also mean that too little was measured to "
            "tell. Differences of accuracy are over the same questions; those of KLD take errors as independent."
        )
    if subject.strategies is not None:
        # Named as here, not by where it lies; the title is that of a document of its own.
        named = replace(subject.strategies, model=subject.name)
        yield from ("", f"##{reason_report.as_markdown(named, _ALONE.format(subject.name)).rstrip()}")
    if subject.experts is not None:
        yield from ("", *_experts(subject))
    yield ""


def _about(subject: Subject) -> Iterator[str]:
    quality = next((file.quality for file in subject.files if file.quality), None)
    if quality is not None:
        yield (
            f"Reference: {subject.against}. Loss: {quality.test}, "
            f"{counted(quality.figures['ppl'].count, 'token')} scored."
        )
    if subject.suite is None:
        yield "No questions were asked of it: the built-in ones are of the embedded model's own kind."
    recipes = [file for file in subject.files if file.recipe != ITSELF]
    if recipes:
        yield (
            f"All other files were made of {subject.name}. Types that need an importance matrix have one of "
            f"{IMATRIX_CHUNKS} x 512 tokens of the built-in calibration text, which is also what the loss is measured "
            "on, so theirs is flattered."
        )
    if recipes and subject.source_bits < 15:
        yield (
            f"The weights of {subject.name} were quantized before, to {subject.source_bits:.2f} bits: what was lost "
            "then is not seen in these losses, and quantizing twice adds its own."
        )


def _experts(subject: Subject) -> Iterator[str]:
    assert subject.experts is not None
    bench = replace(subject.experts, model=subject.name)
    words = experts_report.title(bench)
    yield from (f"### {words[0].upper()}{words[1:]}", "", f"{experts_report.conditions(bench)}.", "")
    yield from _markdown(experts_report.HEADER[1:], [row[1:] for row in experts_report.table(bench)], right=range(2, 9))
    yield ""
    yield from (f"- {each}" for each in (*experts_report.findings(bench), *experts_report.warnings(bench)))
    yield f"- {experts_report.LEGEND}."
    yield (
        "- own: chosen by the task's own profile, merged: by those of all tasks, other: by another task's, random: by "
        "lot, three times."
    )


def _markdown(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] | range = RIGHT
) -> Iterator[str]:
    rule = ["--:" if number in right else ":--" for number in range(len(header))]
    yield from (f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def _quality(file: File, name: str) -> str:
    return "" if file.quality is None else plus_minus(file.quality.figures[name])


def plus_minus(figure: Figure) -> str:
    """With two digits of the standard error; '0' of what is nothing but that."""
    error = figure.error or 0.0
    if error <= 0:
        return f"{figure.mean:.4g}"
    digits = min(6, max(0, 1 - math.floor(math.log10(error))))
    return f"{figure.mean:.{digits}f} ±{error:.{digits}f}"


def _figures(file: File, test: str) -> Mapping[str, Figure]:
    return next((row.figures for row in file.speed if row.test == test), {})


def _speed(file: File, test: str) -> str:
    figure = _figures(file, test).get("tokens_per_second")
    if figure is None:
        return ""
    return f"{figure.mean:.0f}" if figure.error is None else f"{figure.mean:.0f} ±{figure.error:.0f}"


def _memory(file: File, name: str) -> str:
    figure = _figures(file, "memory").get(name)
    return "" if figure is None else str(ByteCount(figure.mean))
