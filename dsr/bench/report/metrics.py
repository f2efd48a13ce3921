"""Metrics of a report, and the rows of a family's files that can be compared by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dsr.bench.report.files import MeasuredFile
from dsr.store.measurement import Figure, Kind, Measurement, short_name
from runtime.base.types import counted


@dataclass(frozen=True, slots=True)
class Fact:
    """A condition that two figures must share to be compared.

    A `minor` fact is shown only for files that differ in it. A fact shown `elsewhere` has its own column.
    """

    text: str
    minor: bool = False
    elsewhere: bool = False


Facts = tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of a bench. `rank(test)` is 0 for the usual test, more for others, None for a test of another metric."""

    kind: Kind
    figure: str
    facts: Callable[[Measurement, Figure], Iterator[Fact]]
    rank: Callable[[str], int | None]


@dataclass(frozen=True, slots=True)
class MetricValue:
    file: MeasuredFile
    row: Measurement
    figure: Figure
    facts: Facts


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """`found`: by the digest of a file, its value. `common`: the facts that most values share."""

    found: Mapping[str, MetricValue]
    common: Facts

    def shared(self) -> tuple[str, ...]:
        """The common facts as text, without minor ones."""
        return tuple(fact.text for fact in self.common if not fact.minor and not fact.elsewhere)

    def otherwise(self, digest: str) -> tuple[str, ...]:
        """The facts in which a file differs from most others."""
        facts = self.found[digest].facts
        return tuple(fact.text for fact in facts if fact not in self.common and not fact.elsewhere)


def compare(files: Sequence[MeasuredFile], metric: Metric) -> MetricComparison:
    """For each file, the row whose facts most files share; else the row of the usual test, else the row of the most
    measurements, else the latest row."""
    offered = {file.digest: found for file in files if (found := _offered(file, metric))}
    times = Counter(facts for found in offered.values() for facts in {each.facts for each in found})

    def usual(value: MetricValue) -> int:
        return -(metric.rank(value.row.test) or 0)

    every = [each for found in offered.values() for each in found]
    if not every:
        return MetricComparison({}, ())
    number = {id(each): place for place, each in enumerate(every)}
    most = max(every, key=lambda each: (times[each.facts], usual(each), each.figure.count, number[id(each)])).facts
    chosen = {
        digest: max(
            found, key=lambda each: (len({*each.facts} & {*most}), usual(each), each.figure.count, number[id(each)])
        )
        for digest, found in offered.items()
    }
    having = Counter(fact for each in chosen.values() for fact in each.facts)
    order = dict.fromkeys(fact for each in chosen.values() for fact in each.facts)
    return MetricComparison(chosen, tuple(fact for fact in order if 2 * having[fact] > len(chosen)))


def _offered(file: MeasuredFile, metric: Metric) -> list[MetricValue]:
    return [
        MetricValue(file, row, figure, tuple(metric.facts(row, figure)))
        for row in file.of(metric.kind)
        if metric.rank(row.test) is not None and (figure := row.figures.get(metric.figure)) is not None
    ]


def _of_loss(row: Measurement, figure: Figure) -> Iterator[Fact]:
    parameters = row.parameters
    if parameters.get("against"):
        yield Fact(f"against {short_name(str(parameters['against']))}")
    if parameters.get("text"):
        amount = f"{counted(figure.count, 'token')} of" if figure.count > 1 else "on"
        text = "the built-in text" if parameters["text"] == "builtin" else short_name(str(parameters["text"]))
        yield Fact(f"{amount} {text}")
    yield from _minor(row, text_digest="text {:.6}", context="context {}")


def of_questions(row: Measurement, figure: Figure) -> Iterator[Fact]:
    """Which questions were asked, and the limits of an answer; equal for all strategies."""
    suite = row.parameters.get("suite")
    questions = counted(figure.count, "question")
    yield Fact(f"{questions} of {short_name(str(suite))}" if suite else questions)
    yield from _minor(row, max_tokens="at most {} tokens", thinking="thinking {}", effort="effort {}")
    yield from _minor(row, think_budget="think budget {}")


def _of_answers(row: Measurement, figure: Figure) -> Iterator[Fact]:
    yield Fact(row.test)
    yield from of_questions(row, figure)
    temperature = row.parameters.get("temperature")
    if isinstance(temperature, (int, float)) and not row.test.startswith("greedy"):
        yield Fact(f"temperature {temperature:g}")


def _of_speed(row: Measurement, figure: Figure) -> Iterator[Fact]:
    yield Fact(row.test)
    yield from _of_engine(row)


def _of_memory(row: Measurement, figure: Figure) -> Iterator[Fact]:
    parameters = row.parameters
    if parameters.get("context") is not None:
        yield Fact(f"context {parameters['context']}")
    if isinstance(slots := parameters.get("slots"), int):
        yield Fact(f"room for {counted(slots, 'sample')}")
    yield from _of_engine(row)


def _of_engine(row: Measurement) -> Iterator[Fact]:
    # Without --threads, the best number is measured for each file. It has a column of its own.
    if row.parameters.get("threads") is not None:
        yield Fact(f"threads {row.parameters['threads']}", elsewhere=True)
    yield from _minor(row, kv_type="KV cache {}", batch="batch {}")
    yield Fact(row.conditions.processor, minor=True)
    yield Fact(f"engine {row.conditions.engine}", minor=True)


def _minor(row: Measurement, **texts: str) -> Iterator[Fact]:
    for name, text in texts.items():
        if (value := row.parameters.get(name)) is not None:
            yield Fact(text.format(str(value)), minor=True)


def _first(test: str) -> int:
    return 0


def _answered(test: str) -> int:
    """Greedy first, then a single sample, then other strategies, oracles last."""
    order = (test.startswith("greedy"), test.startswith("direct"), "oracle" not in test)
    return order.index(True) if True in order else len(order)


def _beginning(begin: str, usual: str) -> Callable[[str], int | None]:
    return lambda test: 0 if test == usual else 1 if test.startswith(begin) else None


DIVERGENCE = Metric("quality", "kld_mean", _of_loss, _first)
AGREEMENT = Metric("quality", "top1_agreement", _of_loss, _first)
PERPLEXITY = Metric("quality", "ppl", _of_loss, _first)
ACCURACY = Metric("reason", "accuracy", _of_answers, _answered)
PROMPT_SPEED = Metric("speed", "tokens_per_second", _of_speed, _beginning("pp", "pp512"))
SPEED = Metric("speed", "tokens_per_second", _of_speed, _beginning("tg", "tg128"))
MEMORY = Metric("speed", "bytes", _of_memory, _first)
