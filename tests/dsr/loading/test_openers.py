"""Every place that opens a model in this process, and the trial that comes before it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
OPENERS = {"LlamaBackend", "Scorer", "Observer", "MappedObserver", "MaskedScorer", "EditedScorer", "SwitchedObserver"}
TRIED = {
    "dsr/loading/load.py:_open": "load tries before it",
    "dsr/loading/draft.py:with_draft": "load tries the draft model before it",
    "dsr/bench/quality/bench.py:_read_reference": "tries itself",
    "dsr/bench/quality/bench.py:_measure": "tries itself",
    "quant/to_a_size/probes.py:_opened": "tries itself",
    "quant/to_a_size/probes.py:_file_divergence": "the source was tried; the files differ in types",
    "quant/measure/cross_stages.py:_opened": "dsr quantize tries before it",
    "quant/measure/divergence.py:compare": "tries itself",
    "quant/measure/divergence.py:perplexity": "only scripts of ours call it",
    "quant/measure/calibrate.py:collect": "dsr imatrix tries before it",
    "quant/measure/moments.py:collect_moments": "dsr imatrix and dsr quantize try before it",
    "quant/measure/routers.py:open_router_reader": "profiles and the choice of experts try before it",
    "quant/experts/prune_search.py:open_with": "dsr experts, its bench and the choice of experts try before it",
    "runtime/nodes/engine_process.py:open": "a process of its own; load tries before it",
}


def opened() -> Iterator[str]:
    for package in ("dsr", "quant", "runtime"):
        for path in (ROOT / package).rglob("*.py"):
            if path.is_relative_to(ROOT / "runtime" / "llama"):
                continue
            for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(function, ast.FunctionDef):
                    for node in ast.walk(function):
                        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in OPENERS:
                            yield f"{path.relative_to(ROOT).as_posix()}:{function.name}"


def test_every_place_that_opens_a_model_is_known_with_its_trial() -> None:
    assert set(opened()) == set(TRIED)
