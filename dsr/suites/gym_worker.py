"""The process that makes and judges questions with reasoning-gym. Only it imports that library.

Some of the library's verifiers evaluate the answer as Python (`eval` in string_insertion, sympy's `parse_expr` in
countdown), so an answer is code. Lines of JSON come in, a line of JSON goes out for each:

    {"name": "gcd", "config": {"max_value": "50"}, "count": 3}
        -> {"entries": [{"question": ..., "answer": ...}, ...], "config": {"max_value": 50}}
    {"name": "gcd", "config": {"max_value": "50"}, "index": 2, "answer": "7"} -> {"score": 1.0}
    something wrong -> {"error": "...", "known": ["...", ...]}

A setting is text, and gets the type of the default of its field. This file imports nothing of dsr: it runs alone.
"""

from __future__ import annotations

import json
import sys
from dataclasses import MISSING, fields
from enum import Enum
from typing import Any

# Some generators draw all their questions at once, and differ with the size. With one size, more questions begin alike.
SIZE = 1000


class _Unknown(Exception):
    def __init__(self, message: str, known: list[str]) -> None:
        super().__init__(message)
        self.known = known


def main() -> None:
    out, sys.stdout = sys.stdout, sys.stderr  # the library may print
    made: dict[str, Any] = {}
    for line in sys.stdin:
        try:
            answer = _answer(json.loads(line), made)
        except _Unknown as error:
            answer = {"error": str(error), "known": error.known}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:300], "known": []}
        out.write(json.dumps(answer) + "\n")
        out.flush()


def _answer(asked: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
    key = json.dumps([asked["name"], asked["config"]])
    if key not in made:
        made[key] = _dataset(asked["name"], asked["config"])
    dataset, config = made[key]
    if "answer" in asked:
        return {"score": float(dataset.score_answer(asked["answer"], dataset[asked["index"]]))}
    entries = []
    for number in range(asked["count"]):
        entry = dataset[number]
        wanted = entry["answer"]
        entries.append({"question": str(entry["question"]), "answer": "" if wanted is None else str(wanted)})
    return {"entries": entries, "config": {name: str(value) for name, value in config.items()}}


def _dataset(name: str, texts: dict[str, str]) -> tuple[Any, dict[str, Any]]:
    from reasoning_gym.factory import DATASETS, create_dataset

    if name not in DATASETS:
        raise _Unknown(f"reasoning-gym has no task {name!r}", sorted(DATASETS))
    known = {field.name: field for field in fields(DATASETS[name][1])}
    config: dict[str, Any] = {}
    for key, text in texts.items():
        if key not in known or key == "size":
            raise _Unknown(f"{name} has no setting {key!r}", sorted(set(known) - {"size", "seed"}))
        config[key] = _typed(known[key], text)
    return create_dataset(name, **{**config, "size": SIZE}), config


def _typed(field: Any, text: str) -> Any:
    """Returns a setting in the type of its default. Raises ValueError."""
    default = field.default if field.default is not MISSING else None
    if default is None and field.default_factory is not MISSING:
        default = field.default_factory()
    if isinstance(default, bool):
        return {"true": True, "false": False}[text]
    if isinstance(default, Enum):
        return type(default)(text)
    if isinstance(default, tuple | list):
        items = text.split("|")
        return type(default)(_like(default[0], item) for item in items) if default else type(default)(items)
    return int(text) if field.name == "seed" else _like(default, text)


def _like(default: Any, text: str) -> Any:
    if isinstance(default, Enum):
        return type(default)(text)
    if isinstance(default, int | float):
        return type(default)(text)
    return text


if __name__ == "__main__":
    main()
