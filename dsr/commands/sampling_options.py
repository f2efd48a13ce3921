"""The options of the panel "Sampling", which `dsr chat` and `dsr bench reason` share, and the request made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from dsr.models.sampling import SamplingRequest

PANEL = "Sampling"


def _option(*names: str, metavar: str, help: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=help, rich_help_panel=PANEL)


TempOpt = Annotated[
    float | None,
    _option("--temp", metavar="T", help="Sampling temperature; 0 is greedy. Default: recommended for the model."),
]
TopPOpt = Annotated[
    float | None,
    _option(
        "--top-p",
        metavar="P",
        help="Nucleus sampling: keep tokens up to total probability P; 1 is off. Default: recommended.",
    ),
]
MinPOpt = Annotated[
    float | None,
    _option("--min-p", metavar="P", help="Drop tokens below P times the likeliest; 0 is off. Default: recommended."),
]
TopKOpt = Annotated[
    int | None,
    _option("--top-k", metavar="K", help="Keep the K likeliest tokens; 0 is off. Default: recommended."),
]
PresencePenaltyOpt = Annotated[
    float | None,
    _option(
        "--presence-penalty",
        metavar="X",
        help="Lower the logits of tokens that occurred by X, -10 to 10. Default: recommended, else 0 (off).",
    ),
]
FrequencyPenaltyOpt = Annotated[
    float | None,
    _option(
        "--frequency-penalty",
        metavar="X",
        help="Lower the logit of a token by X for each time it occurred, -10 to 10. Default: recommended, else 0.",
    ),
]
RepeatPenaltyOpt = Annotated[
    float | None,
    _option(
        "--repeat-penalty",
        metavar="X",
        help="Divide the logits of tokens that occurred by X, 0.1 to 10; 1 is off. Default: recommended, else 1.",
    ),
]
PenaltyLastNOpt = Annotated[
    int | None,
    _option(
        "--penalty-last-n",
        "--repeat-last-n",
        metavar="N",
        help="Tokens of prompt and reply that the penalties count; -1 is all. Default: recommended, else 64.",
    ),
]
DryMultiplierOpt = Annotated[
    float | None,
    _option(
        "--dry-multiplier",
        metavar="X",
        help="DRY: strength of the penalty for prolonging a repetition, 0 to 100. Default: recommended, else 0 (off).",
    ),
]
DryBaseOpt = Annotated[
    float | None,
    _option("--dry-base", metavar="X", help="DRY: growth of the penalty with each token, 1 to 10. Default: 1.75."),
]
DryAllowedLengthOpt = Annotated[
    int | None,
    _option(
        "--dry-allowed-length",
        metavar="N",
        help="DRY: length of repetitions without penalty, 1 to 1000 tokens. Default: 2.",
    ),
]
DryPenaltyLastNOpt = Annotated[
    int | None,
    _option(
        "--dry-penalty-last-n",
        metavar="N",
        help="DRY: tokens of prompt and reply to search for repetitions; -1 is all. Default: 64.",
    ),
]
DrySequenceBreakerOpt = Annotated[
    list[str] | None,
    _option(
        "--dry-sequence-breaker",
        metavar="TEXT",
        help=r"DRY: text that ends a repetition, or none. Repeatable. Default: \n, :, double quotes, *.",
    ),
]
XtcProbabilityOpt = Annotated[
    float | None,
    _option(
        "--xtc-probability",
        metavar="P",
        help="XTC: probability to drop the likeliest tokens, 0 to 1. Default: recommended, else 0 (off).",
    ),
]
XtcThresholdOpt = Annotated[
    float | None,
    _option(
        "--xtc-threshold",
        metavar="P",
        help="XTC: drop tokens above probability P, but not the last of them, 0 to 1. Default: 0.1.",
    ),
]
TypicalPOpt = Annotated[
    float | None,
    _option(
        "--typical-p",
        "--typical",
        metavar="P",
        help="Locally typical sampling: keep typical tokens up to total probability P. Default: 1 (off).",
    ),
]
TopNSigmaOpt = Annotated[
    float | None,
    _option(
        "--top-n-sigma",
        metavar="N",
        help="Keep tokens within N standard deviations below the best logit, 0 to 100. Default: 0 (off).",
    ),
]
DynatempRangeOpt = Annotated[
    float | None,
    _option(
        "--dynatemp-range",
        metavar="R",
        help="Dynamic temperature between T - R and T + R, by entropy, 0 to 10. Default: 0 (off).",
    ),
]
DynatempExponentOpt = Annotated[
    float | None,
    _option(
        "--dynatemp-exponent",
        "--dynatemp-exp",
        metavar="X",
        help="Exponent of the entropy in the dynamic temperature, 0 to 10. Default: 1.",
    ),
]
LogitBiasOpt = Annotated[
    list[str] | None,
    _option(
        "--logit-bias",
        metavar="TOKEN=BIAS",
        help="Add to the logit of a token's number or of a text's tokens, -100 to 100; -inf forbids. Repeatable.",
    ),
]


def sampling_request(
    *, logit_bias: list[str] | None = None, dry_sequence_breakers: list[str] | None = None, **given: Any
) -> SamplingRequest:
    """The request of the options; `given` has the names of `SamplingRequest`. Raises UsageError."""
    from dsr.models.sampling import SETTINGS, SamplingRequest, breakers_of, logit_bias_of, option_name
    from runtime.base.errors import UsageError
    from runtime.base.types import out_of_range

    for setting, value in given.items():
        if value is not None and (complaint := out_of_range(setting, value)):
            option = f"--{option_name(setting)}"
            hint = f"for the model's recommendation, leave out {option}" if setting in SETTINGS else None
            raise UsageError(f"{option} {complaint}", hint=hint)

    return SamplingRequest(
        logit_bias=tuple(map(logit_bias_of, logit_bias)) if logit_bias else None,
        dry_sequence_breakers=breakers_of(tuple(dry_sequence_breakers)) if dry_sequence_breakers else None,
        **given,
    )
