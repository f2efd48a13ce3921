"""`dsr chat --batch`: read the questions, open the model once, draw what is missing, give the results in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dsr.chat.asked import check_known, with_usual
from dsr.chat.batch.draw import Batch
from dsr.chat.batch.questions import Question, by_key, read_questions
from dsr.chat.batch.results import FileResults, PrintedResults, Result
from dsr.chat.session import EMBEDDED, ChatRequest
from dsr.loading.load import load
from dsr.models import library
from dsr.models.model import Model
from dsr.ui.console import Console
from dsr.ui.interrupts import stopping
from dsr.ui.progress import showing
from dsr.ui.streams import write_out
from runtime.base.errors import Aborted, UsageError
from runtime.base.events import Progress
from runtime.base.run import Run, Stop
from runtime.base.texts import json_text
from runtime.base.types import counted
from runtime.strategies.strategy import USUAL_SAMPLES

_SCHEMA = "dsr.chat.batch/1"


def answer_batch(
    request: ChatRequest, file: Path | None, out: Path | None, console: Console, useless: Sequence[str] = ()
) -> int:
    """Answer the questions of a file as `request` says; returns the exit code: 1 if a question has no answer.

    `out` None prints the results. `useless` are the options that the user gave and that change nothing in a batch.

    Raises UsageError for a file that is no batch, for results of other questions, and for options that a batch has no
    use for; Aborted after Ctrl-C, and the results so far are kept.
    """
    file = _checked(request, file, useless)
    model = library.find(request.model or request.default_model or EMBEDDED)
    if request.asked.effort or request.asked.keep_thoughts:
        check_known(model.chat_format(request.load.template), request.asked)
    sampling = request.sampling
    # Not a new seed for each run: a batch that goes on would be another one.
    params = replace(sampling, seed=sampling.seed or 0).applied_to(model.sampling.params)
    batch = Batch(params, with_usual(request.asked, request.usual), request.strategy, request.grammar)
    questions = by_key(read_questions(file, request.system or ""), _conditions(model, request, batch))
    heads = {
        key: {"schema": _SCHEMA, "number": each.number, "id": each.id, "model": model.reference}
        for key, each in questions.items()
    }
    results = FileResults(out, heads) if out is not None else PrintedResults(_print, heads)
    missing = {key: each for key, each in questions.items() if key not in results.done}
    if results.done:
        console.say(f"{len(results.done)} of {counted(len(questions), 'question')} answered before")
    with results:
        if missing:
            _draw(model, request, batch, missing, results, console)
        results.finish()
    failed = sum(not str(each.get("answer") or "").strip() for each in results.done.values())
    if out is not None:
        console.say(f"{counted(len(questions), 'result')} in {out}")
    if failed:
        console.say(f"{counted(failed, 'question has', 'questions have')} no answer: see failure and finish_reason")
    return 1 if failed else 0


def _checked(request: ChatRequest, file: Path | None, useless: Sequence[str]) -> Path:
    if file is None:
        raise UsageError("--out is for the answers of a batch", hint="add --batch FILE, or use: dsr chat ... > FILE")
    given = {
        "a question": request.prompt is not None,
        "--file": bool(request.files),
        "--resume": request.resume,
        "--tools": request.tools is not None,
        "--experts": request.experts is not None,
        "--reproducible": request.reproducible,
    }
    if wrong := [name for name, is_given in given.items() if is_given]:
        raise UsageError(f"--batch and {wrong[0]} exclude each other", hint="put each question on a line of the file")
    if useless:
        raise UsageError(
            f"--batch has no use for {useless[0]}: a result has thinking and answer in fields of their own",
            hint=f"leave out {useless[0]}",
        )
    if request.strategy is not None and request.strategy.kind.long:
        raise UsageError(
            f"--batch has no files that {request.strategy.kind.name} could search",
            hint="ask one question: dsr chat -f FILE",
        )
    if request.grammar is not None:
        from runtime.llama.constraint import check_grammar

        check_grammar(request.grammar)
    return file


def _draw(
    model: Model,
    request: ChatRequest,
    batch: Batch,
    missing: Mapping[str, Question],
    results: FileResults | PrintedResults,
    console: Console,
) -> None:
    slots = batch.strategy.samples if batch.strategy is not None else min(USUAL_SAMPLES, len(missing))
    stop, done = Stop(), 0
    with showing(console) as listen, stopping(stop):
        options = request.load.for_samples(slots, batch.params.max_tokens)
        with load(model, options, Run(stop, listen, request.threads)) as loaded:
            for done, (key, result) in enumerate(batch.results(loaded, missing), 1):
                results.add(key, result)
                listen(Progress("answering", "", done, len(missing), "questions"))
    if done < len(missing):
        way = "run the same command to go on" if isinstance(results, FileResults) else "with --out FILE it could go on"
        console.say(f"{done} of {counted(len(missing), 'question')} answered; {way}")
        raise Aborted


def _conditions(model: Model, request: ChatRequest, batch: Batch) -> dict[str, Any]:
    """What decides about the answers, besides the questions."""
    return {
        "model": [[str(each), each.stat().st_size] for each in model.files],
        "sampling": asdict(batch.params),
        "thinking": batch.asked.thinking,
        "effort": batch.asked.effort,
        "special": batch.asked.special,
        "strategy": None if batch.strategy is None else str(batch.strategy),
        "grammar": None if batch.grammar is None else [batch.grammar.kind, batch.grammar.text],
        "template": request.load.template,
        "draft": [request.load.draft, request.load.route],
        "cache": [request.load.context, request.load.kv_type, request.load.kv_full],
        "rope": None if request.load.rope is None else [request.load.rope.factor],
        "lora": [[str(each.path), each.scale] for each in request.load.lora],
    }


def _print(result: Result) -> None:
    write_out(json_text(result) + "\n")
