"""The figures of a file's row, and what must be the same for two of them to be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dsr.bench.report.comparison import Aspect, Fact
from dsr.store.measurement import Figure, Measurement, short_name
from runtime.base.words import counted


def _of_loss(row: Measurement, figure: Figure) -> Iterator[Fact]:
    told = row.parameters
    if told.get("against"):
        yield Fact(f"against {short_name(str(told['against']))}")
    if told.get("text"):
        amount = f"{counted(figure.count, 'token')} of" if figure.count > 1 else "on"
        text = "the built-in text" if told["text"] == "builtin" else short_name(str(told["text"]))
        yield Fact(f"{amount} {text}")
    yield from _minor(row, text_digest="text {:.6}", context="context {}")


def of_questions(row: Measurement, figure: Figure) -> Iterator[Fact]:
    """Which were asked, and how much may be answered: for all strategies."""
    suite = row.parameters.get("suite")
    questions = counted(figure.count, "question")
    yield Fact(f"{questions} of {short_name(str(suite))}" if suite else questions)
    yield from _minor(row, max_tokens="at most {} tokens", thinking="thinking {}", think_budget="think budget {}")


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
    told = row.parameters
    if told.get("context") is not None:
        yield Fact(f"context {told['context']}")
    if isinstance(slots := told.get("slots"), int):
        yield Fact(f"room for {counted(slots, 'sample')}")
    yield from _of_engine(row)


def _of_engine(row: Measurement) -> Iterator[Fact]:
    # Threads are measured for each file where nobody says how many: that is part of a file's figures.
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
    """Greedy, else a sample as it comes, else what a user can have."""
    order = (test.startswith("greedy"), test.startswith("direct"), "oracle" not in test)
    return order.index(True) if True in order else len(order)


def _beginning(begin: str, usual: str) -> Callable[[str], int | None]:
    return lambda test: 0 if test == usual else 1 if test.startswith(begin) else None


DIVERGENCE = Aspect("quality", "kld_mean", _of_loss, _first)
AGREEMENT = Aspect("quality", "top1_agreement", _of_loss, _first)
PERPLEXITY = Aspect("quality", "ppl", _of_loss, _first)
ACCURACY = Aspect("reason", "accuracy", _of_answers, _answered)
PROMPT_SPEED = Aspect("speed", "tokens_per_second", _of_speed, _beginning("pp", "pp512"))
SPEED = Aspect("speed", "tokens_per_second", _of_speed, _beginning("tg", "tg128"))
MEMORY = Aspect("speed", "bytes", _of_memory, _first)
