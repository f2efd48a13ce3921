"""The folder of a bench's samples: the conditions that they were drawn under, and a ledger for each kind of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dsr.bench.kit import files
from dsr.bench.kit.files import file_name
from dsr.bench.reason.rows import GREEDY, LIKELIHOOD, StrategyRow
from dsr.models.sampling import effective, sampling_json
from dsr.store.ledger import Ledger
from dsr.suites.problem import Suite, SuiteProblem
from runtime.base.errors import DsrError, UsageError
from runtime.engine.prompt_options import PromptOptions
from runtime.gguf.adapter import Adapter
from runtime.gguf.reader import ModelCard


def conditions_of(
    card: ModelCard, suite: Suite, params: Any, asked: PromptOptions, adapters: Sequence[Adapter]
) -> dict[str, Any]:
    """Returns all that a sample depends on, except its problem and number.

    Settings that few runs use are there only if they have an effect, so that older samples stay usable.
    """
    always = ("temperature", "top_p", "min_p", "top_k", "max_tokens", "think_budget", "seed")
    shown = sampling_json(params)
    return {
        "model": card.header_digest,
        "suite": suite.digest,
        **({"questions": suite.source.partition(":")[0]} if suite.source else {}),
        "thinking": asked.thinking,
        **({"effort": asked.effort} if asked.effort else {}),
        **({"lora": [f"{each.digest} scale {each.scale:g}" for each in adapters]} if adapters else {}),
        **{name: getattr(params, name) for name in always},
        **{name: shown[name] for name in effective(params) if name not in always},
    }


def check_folder(folder: Path, conditions: Mapping[str, Any]) -> None:
    """Makes the folder, or raises UsageError if its samples were drawn under other conditions."""
    file = folder / "run.json"
    try:
        there = json.loads(file.read_text(encoding="utf-8"))
        before = dict(there["conditions"])
    except FileNotFoundError:
        files.write(file, json.dumps({"conditions": conditions}, indent=2) + "\n")
        return
    except OSError as error:
        raise DsrError(
            f"{file}: cannot be read: {error.strerror or error}", hint="choose another --out FOLDER"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"{file}: dsr bench did not write this file", hint="choose another --out FOLDER") from None
    other = [name for name in {**conditions, **before} if before.get(name) != conditions.get(name)]
    if other:
        changes = "; ".join(
            f"{name} was {_short(before.get(name))}, now {_short(conditions.get(name))}" for name in other
        )
        raise UsageError(
            f"{folder} has samples of another run: {changes}", hint="choose another --out FOLDER, or leave it out"
        )


def _short(value: Any) -> str:
    return value[:8] if isinstance(value, str) else str(value)


def file_of(row: StrategyRow) -> str:
    return {"greedy": GREEDY, "own": row.file or row.label, "likelihood": LIKELIHOOD}.get(row.source, "samples")


def files_of(rows: Sequence[StrategyRow]) -> list[str]:
    return list(dict.fromkeys(file_of(row) for row in rows))


def open_ledger(folder: Path, name: str) -> Ledger:
    own = name not in (GREEDY, "samples")
    return Ledger(
        folder / f"{file_name(name)}.jsonl", lambda entry: entry["id"] if own else (entry["id"], entry["sample"])
    )


def is_complete(row: StrategyRow, ledger: Ledger, problems: Sequence[SuiteProblem], samples: int) -> bool:
    return all(has_samples(row, ledger, problem, samples) for problem in row.of(problems))


def has_samples(row: StrategyRow, ledger: Ledger, problem: SuiteProblem, samples: int) -> bool:
    if row.source in ("own", "likelihood"):
        return problem.id in ledger
    return all((problem.id, sample) in ledger for sample in range(1 if row.source == "greedy" else samples))
