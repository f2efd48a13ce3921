"""The section of docs/results.md that `rounding.py` makes of what it found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from dsr import __version__
from tests.peers.rounding_judge import Loss
from tests.peers.rounding_subjects import RECIPES, SUBJECTS, Subject

Found = dict[str, Any]

_TEXTS = {
    "problems": "held-out problems of nano's families",
    "conversations": "held-out conversations",
    "manual": "Python's manual",
}
_ANSWERED = {"original": "F16", "plain": "llama-quantize", "best": "`--round best`", "size": "`--size`"}


def section(found: Found, command: str) -> str:
    subjects = [(SUBJECTS[name], found[name]) for name in SUBJECTS if name in found]
    parts = [
        f"## Corrected rounding beside llama-quantize\n\n    {command}",
        f"{_made(found)} dsr {__version__}. Texts: {_texts(subjects)}. KLD: KL divergence from the F16 weights, nats "
        "per token, each text read in an empty context, every token counted; same top: percent of tokens where both "
        "find the same likeliest; plain: llama-quantize, for ud-* dsr; ±: one standard error, a text is one draw, and "
        "ratios pair the texts.",
        "The real models are F16 weights on no grid (`tests/peers/fresh_weights.py`). Both sides saw the same tokens: "
        "llama-quantize has their importance matrix, dsr their second moments. Those are of dsr's built-in text, in "
        "the model's template where its file has one; own: of 190,000 tokens of nano's families.",
        "### The same types, the same bytes\n\n" + _pairs(subjects, "best", "`--round best`"),
        "### The same bytes, types measured by dsr\n\n" + _pairs(subjects, "size", "`--size`"),
    ]
    answers = list(_answers(subjects))
    if answers:
        heads = ("model", "suite", "file", "right", "of", "difference from F16, points")
        parts.append("### Right answers, greedy\n\n" + _table(heads, answers, left=3))
    heads = ("model", "types", "moments", "llama-quantize", "`--round best`", "`--size`")
    parts.append("### Processor time, seconds\n\n" + _table(heads, _times(subjects), left=2))
    return "\n\n".join(parts)


def _made(found: Found) -> str:
    days = sorted({each["made"] for subject in found.values() for each in subject.values() if "made" in each})
    return f"Made {days[0]}" + (f" to {days[-1]}." if len(days) > 1 else ".") if days else ""


def _texts(subjects: Iterable[tuple[Subject, Found]]) -> str:
    seen: dict[str, list[tuple[int, int]]] = {}
    for _, known in subjects:
        for each in known.values():
            for name, loss in each.get("losses", {}).items():
                seen.setdefault(name, []).append((len(loss["counts"]), sum(loss["counts"])))
    return "; ".join(f"{_TEXTS[name]} ({_span(n for n, _ in of)} texts, {_span(t for _, t in of)} tokens)"
                     for name, of in seen.items())  # fmt: skip


def _span(values: Iterable[int]) -> str:
    found = sorted(set(values))
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"


def _loss(known: Found, key: str, text: str) -> Loss | None:
    kept = known.get(key, {}).get("losses", {}).get(text)
    return None if kept is None else Loss(tuple(kept["sums"]), tuple(kept["counts"]), tuple(kept["same"]))


def recipes_of(known: Found) -> list[str]:
    """The recipes that were measured, llama.cpp's own first."""
    measured = dict.fromkeys(key.rpartition("-")[0] for key in known if key.endswith("-plain"))
    return sorted(measured, key=lambda name: RECIPES.index(name) if name in RECIPES else len(RECIPES))


def _pairs(subjects: Iterable[tuple[Subject, Found]], kind: str, label: str) -> str:
    rows = []
    for subject, known in subjects:
        goals = subject.wanted if kind == "best" else subject.wanted_of_size
        for recipe in recipes_of(known):
            for text in subject.judged:
                plain, ours = (_loss(known, f"{recipe}-{each}", text) for each in ("plain", kind))
                if plain is None or ours is None:
                    continue
                ratio, error = ours.ratio(plain)
                wanted = goals.get(recipe)
                rows.append(
                    (
                        subject.title,
                        recipe,
                        text,
                        f"{known[f'{recipe}-plain']['bytes']:,}",
                        _estimate(plain.mean, plain.error),
                        _estimate(ours.mean, ours.error),
                        f"{ratio:.3f} ±{error:.3f}",
                        "" if wanted is None else f"{wanted:.2f}" + ("" if ratio <= wanted else ", missed"),
                        f"{100 * plain.same_top:.1f}, {100 * ours.same_top:.1f}",
                    )
                )
    heads = ("model", "types of", "text", "bytes", "KLD, plain", f"KLD, {label}", "ratio", "wanted", "same top")
    return _table(heads, rows, left=3)


def _answers(subjects: Iterable[tuple[Subject, Found]]) -> Iterator[tuple[str, ...]]:
    for subject, known in subjects:
        if "answers" not in known.get("original", {}):
            continue
        base = known["original"]["answers"]["right"]
        for kind, label in _ANSWERED.items():
            key = kind if kind == "original" else f"{subject.asked}-{kind}"
            right = known.get(key, {}).get("answers", {}).get("right")
            if right is None:
                continue
            differences = np.array([right[name] - float(base[name]) for name in base])
            error = differences.std(ddof=1) / np.sqrt(len(differences))
            yield (
                subject.title,
                subject.suite,
                label if kind == "original" else f"{label} at {subject.asked}'s bytes",
                f"{100 * sum(right.values()) / len(right):.1f} %",
                str(len(right)),
                "" if kind == "original" else f"{100 * differences.mean():+.1f} ±{100 * error:.1f}",
            )


def _times(subjects: Iterable[tuple[Subject, Found]]) -> Iterator[tuple[str, ...]]:
    for subject, known in subjects:
        for recipe in recipes_of(known):
            times = [known.get(f"{recipe}-{kind}", {}).get("processor") for kind in ("plain", "best", "size")]
            shown = ["" if each is None else f"{each:.0f}" for each in (known["moments"]["processor"], *times)]
            yield (subject.title, recipe, *shown)


def _estimate(value: float, error: float) -> str:
    digits = max(0, 1 - int(np.floor(np.log10(error)))) if error > 0 else 4
    return f"{value:.{digits}f} ±{error:.{digits}f}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, left: int) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + " :-- |" * left + " --: |" * (len(heads) - left)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
