"""The result of `dsr bench quality`: the loss of each file against one reference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from dsr.store.measurement import Conditions, Figure, Measurement
from runtime.base.errors import DsrError
from runtime.base.types import ByteCount

if TYPE_CHECKING:
    from quant.measure.divergence import Estimate, Report


@dataclass(frozen=True, slots=True)
class LossReference:
    """The reference and the text that files are compared on. `tokens`: the number of scored tokens.

    `base`: "whole" if the reference's whole output was known; "kept" if a base file has only the most likely tokens
    and the sum of the others. `whole`: `chunks` conversations were read whole, instead of chunks of `context` tokens.
    """

    name: str
    digest: str
    text: str
    text_digest: str
    context: int
    chunks: int
    tokens: int
    base: str
    whole: bool = False

    @property
    def test(self) -> str:
        return f"{self.chunks} {'whole' if self.whole else f'x {self.context}'} of {self.text}"

    @property
    def parameters(self) -> Mapping[str, str | int]:
        return {
            # The digest identifies a file, the folder does not.
            "against": PurePath(self.name).name if self.name.casefold().endswith(".gguf") else self.name,
            "against_digest": self.digest,
            "text": self.text,
            "text_digest": self.text_digest,
            "context": self.context,
            "chunks": self.chunks,
            "base": self.base,
            **({"whole": 1} if self.whole else {}),
        }


@dataclass(frozen=True, slots=True)
class FileLoss:
    """The loss of one file. `size`: bytes of all parts. `calibrated_on_text`: its importance matrix was collected on a
    text with the name of the text that was read."""

    model: str
    digest: str
    size: ByteCount
    bits_per_weight: float
    report: Report
    conditions: Conditions
    seconds: float
    at: float
    calibrated_on_text: bool

    def measurement(self, reference: LossReference) -> Measurement:
        return Measurement(
            kind="quality",
            model=self.model,
            digest=self.digest,
            size=int(self.size),
            test=reference.test,
            parameters=reference.parameters,
            figures=figures(self.report, self.bits_per_weight),
            conditions=self.conditions,
            at=self.at,
        )

    def json(self) -> dict[str, Any]:
        report = self.report
        median, at_90, at_95, at_99, _, largest = report.kld_percentiles
        return {
            "model": self.model,
            "bytes": int(self.size),
            "bpw": round(self.bits_per_weight, 4),
            **_json("ppl", report.perplexity),
            "kld_mean": report.kld.value,
            "kld_stderr": report.kld.error,
            "kld_bound": None if report.kld_bound is None else report.kld_bound.value,
            "kld_median": median,
            "kld_90": at_90,
            "kld_95": at_95,
            "kld_99": at_99,
            "kld_max": largest,
            **_json("top1_agreement", report.same_top),
            **_json("probability_rms", report.probability_rms),
            **_json("ln_ppl_ratio", report.log_ratio),
            "tokens": report.tokens,
            "seconds": round(self.seconds, 3),
            "calibrated_on_text": self.calibrated_on_text,
            "load": self.conditions.load,
            "disturbed": self.conditions.disturbed,
        }


@dataclass(frozen=True, slots=True)
class QualityBench:
    """The result, in the order of the request. `failed`: models with their errors.

    `base_size`: bytes of the base file, None without; `base_share`: as a share of llama-perplexity's base file.
    """

    reference: LossReference
    reference_perplexity: Estimate
    measured: tuple[FileLoss, ...]
    failed: tuple[tuple[str, DsrError], ...]
    interrupted: bool
    base_size: int | None
    base_share: float

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        return tuple(each.measurement(self.reference) for each in self.measured)

    def json(self) -> dict[str, Any]:
        return {
            "reference": {"model": self.reference.name, **_json("ppl", self.reference_perplexity)},
            "text": self.reference.text,
            "context": self.reference.context,
            "chunks": self.reference.chunks,
            "tokens": self.reference.tokens,
            "base": self.reference.base,
            "whole": self.reference.whole,
            "base_bytes": self.base_size,
            "rows": [{**each.json(), **each.measurement(self.reference).json()} for each in self.measured],
            "failed": [{"model": model, "why": error.message} for model, error in self.failed],
            "interrupted": self.interrupted,
        }


def figures(report: Report, bits_per_weight: float) -> dict[str, Figure]:
    """Returns the figures of a measurement. With a base file, `kld_mean` is an estimate and `kld_bound` a bound."""
    count = report.tokens
    ratio = math.exp(report.log_ratio.value)
    found = {
        "ppl": Figure(report.perplexity.value, report.perplexity.error, count),
        "ppl_ratio": Figure(ratio, ratio * report.log_ratio.error, count),
        "kld_mean": Figure(report.kld.value, report.kld.error, count),
    }
    if report.kld_bound is not None:
        found["kld_bound"] = Figure(report.kld_bound.value, report.kld_bound.error, count)
    names = ("kld_median", "kld_90", "kld_95", "kld_99", "kld_99.9", "kld_max")
    found |= {
        name: Figure(value) for name, value in zip(names, report.kld_percentiles, strict=True) if name != "kld_99.9"
    }
    return found | {
        "top1_agreement": Figure(report.same_top.value, report.same_top.error, count),
        "probability_rms": Figure(report.probability_rms.value, report.probability_rms.error, count),
        "bpw": Figure(bits_per_weight),
    }


def _json(name: str, estimate: Estimate) -> dict[str, float]:
    error = "top1_stderr" if name == "top1_agreement" else f"{name}_stderr"
    return {name: estimate.value, error: estimate.error}
