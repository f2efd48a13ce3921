"""Rows such as benches measure, for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dsr.bench.report.charts import charts
from dsr.bench.report.families import families
from dsr.bench.report.files import select
from dsr.store.measurement import Conditions, Figure, Measurement
from dsr.store.predictions import Figures, PredictedRun
from dsr.ui.charts.chart import Chart

HERE = Conditions("a processor", 2, 8 << 30, "0.1", "0.3.36", load=0.02)
BUSY = replace(HERE, load=0.4, disturbed="other work took 40% of the processor")
DAY = 1_790_000_000.0  # 2026-09-21
HOSTILE = "</title><script>alert('x')</script>&\"|`[a](http://evil)\x1b[2J\u202e.gguf"


def row(kind: Any, test: str, figures: dict[str, Figure], model: str = "nano", **parameters: Any) -> Measurement:
    size = {"nano": 8 << 20, "q4.gguf": 4 << 20, "q2.gguf": 2 << 20}.get(model, 1 << 20)
    return Measurement(kind, model, f"digest of {model}", size, test, parameters, figures, HERE, DAY)


def quality(model: str, kld: float) -> Measurement:
    figures = {
        "kld_mean": Figure(kld, kld / 10, 1000),
        "ppl": Figure(12.3456, 0.1234, 1000),
        "top1_agreement": Figure(0.98765, 0.001, 1000),
        "bpw": Figure(4.876),
    }
    return row("quality", "20 x 512 of builtin", figures, model, against="/home/me/f16.gguf", text="builtin", chunks=20)


def votes(model: str, count: int, speed: float) -> Measurement:
    return row("speed", f"votes {count}", {"tokens_per_second": Figure(speed, 1.0, 5)}, model, votes=count)


ROWS = (
    quality("q4.gguf", 0.03),
    quality("q2.gguf", 0.3),
    row("speed", "pp512", {"tokens_per_second": Figure(2401.3, 10.2, 5)}, votes=1, threads=2),
    replace(row("speed", "tg128", {"tokens_per_second": Figure(52.66, 1.04, 5)}, votes=1, threads=2), conditions=BUSY),
    row("speed", "memory", {"bytes": Figure(90 << 20), "predicted_bytes": Figure(88 << 20)}),
    *(votes("nano", count, 50.0 * count) for count in (1, 2, 4, 8)),
    row("reason", "direct", {"accuracy": Figure(0.5, 0.05, 100), "tokens": Figure(60.0)}, suite="nano", problems=100),
    row("reason", "greedy", {"accuracy": Figure(0.9, 0.03, 100), "tokens": Figure(57.0)}, suite="nano", problems=100),
    row("reason", "pass@8 (oracle)", {"accuracy": Figure(1.0, 0.0, 100), "tokens": Figure(460.0)}, suite="nano"),
    row("experts", "own 4 of 16", {"accuracy": Figure(0.75, 0.04, 100)}, suite="nano"),
    row("experts", "own 8 of 16", {"accuracy": Figure(0.85, 0.04, 100)}, suite="nano"),
)
RUN = PredictedRun(DAY, "nano", 2048, 8, "f16", Figures(100.0, 95 << 20), Figures(90.0, 100 << 20), 100.0, 2, "p")


def chart(rows: Sequence[Measurement], name: str, runs: Sequence[PredictedRun] = ()) -> Chart:
    data = select(rows, runs)
    [found] = [each for each in charts(data, families(data.files)) if each.name == name]
    return found


def recipe(family: str, quant: str, size: int, place: int) -> tuple[Measurement, ...]:
    """A file as `dsr bench all` measures it; `place` makes its figures."""
    model = f"/m/{family}-f16.gguf" if quant == "f16" else f"/m/cache/{family}-f16-{quant}.gguf"
    reference = {"against": f"/m/{family}-f16.gguf", "against_digest": f"digest of {family} f16"}
    asked = {"suite": "nano", "problems": 50}
    speed = Figure(2000.0 + 40 * place, 20.0, 3)
    measured: tuple[tuple[Any, str, dict[str, Figure], dict[str, Any]], ...] = (
        (
            "quality",
            "8 x 512 of builtin",
            {"kld_mean": Figure(2e-8 if quant == "f16" else 0.001 * 1.2**place, 0.0002, 2040)},
            {**reference, "text": "builtin"},
        ),
        ("reason", "greedy", {"accuracy": Figure(0.92 - 0.01 * place, 0.04, 50), "tokens": Figure(57.0)}, asked),
        ("speed", "tg128", {"tokens_per_second": speed}, {"threads": 2}),
        ("speed", "memory", {"bytes": Figure(size * 3), "predicted_bytes": Figure(size * 3.1)}, {"threads": 2}),
        *(("speed", f"votes {n}", {"tokens_per_second": Figure(n * 900.0 + place)}, {"votes": n}) for n in (1, 4)),
    )
    return tuple(
        Measurement(kind, model, f"digest of {family} {quant}", size, test, parameters, figures, HERE, DAY)
        for kind, test, figures, parameters in measured
    )


def many() -> tuple[Measurement, ...]:
    """Of 45 files in two families, one of them with names that need a line of their own."""
    quants = (
        "f16",
        "q8_0",
        *(f"q{bits}_k_{size}" for bits in range(2, 7) for size in "sml"),
        "iq4_xs",
        "iq3_xxs",
        "iq2_xs",
    )
    short = [recipe("nano", quant, (40 - place) << 18, place) for place, quant in enumerate(quants)]
    long = [
        recipe("A-model-with-a-long-name-70B-Instruct", f"{quant}-{by}", (90 - place) << 22, place)
        for place, (quant, by) in enumerate((quant, by) for quant in quants for by in ("imatrix", "plain"))
    ]
    return tuple(row for rows in (*short, *long[:25]) for row in rows)
