"""Writes runtime/strategies/measured.toml from the tables of strategies in docs/results.md.

    python tests/strategy_figures.py

A test compares the two. Run it after new figures came into docs/results.md.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from runtime.strategies.measured import Measured, Row, as_toml  # noqa: E402

RESULTS, DATA = ROOT / "docs" / "results.md", ROOT / "runtime" / "strategies" / "measured.toml"
_HEADING = re.compile(r"^### (\S+) on (.+?): (\d+) (?:problems|questions), \d+ samples each$", re.MULTILINE)
_ROW = re.compile(r"^\| `([^`]+)` \| ([\d.]+) \| [^|]*\| (\d+) \|", re.MULTILINE)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([bm])\b", re.IGNORECASE)
# Where the name does not say how many parameters there are; and which names stand for models that mark their thoughts.
_PARAMETERS = {"nano": 12_000_000}
_THINKS = re.compile(r"nano|deepseek-r1|qwen3|qwq|think", re.IGNORECASE)


def measured(text: str) -> tuple[Measured, ...]:
    """The tables of strategies in a document. Oracles are left out: they know the answers."""
    headings = [*_HEADING.finditer(text)]
    found = []
    for heading, after in zip(headings, [*headings[1:], None], strict=True):
        part = text[heading.end() : after.start() if after else len(text)].partition("\n#")[0]
        model, suite, questions = heading.groups()
        rows = tuple(
            Row(label, float(right), int(tokens))
            for label, right, tokens in _ROW.findall(part)
            if "oracle" not in label
        )
        if rows:
            thinks = _THINKS.search(model) is not None
            found.append(Measured(model, parameters(model), thinks, suite.replace("`", ""), int(questions), rows))
    return tuple(found)


def parameters(model: str) -> int:
    """How many parameters a model has by its name. Raises ValueError."""
    if model in _PARAMETERS:
        return _PARAMETERS[model]
    size = _SIZE.search(model)
    if size is None:
        raise ValueError(f"how many parameters has {model}? add it to _PARAMETERS")
    return round(float(size[1]) * {"b": 1e9, "m": 1e6}[size[2].lower()])


def document() -> str:
    tables = as_toml(measured(RESULTS.read_text(encoding="utf-8")))
    return f"# Made of docs/results.md by tests/strategy_figures.py. [percent right, tokens per question]\n\n{tables}"


if __name__ == "__main__":
    DATA.write_text(document(), encoding="utf-8")
