"""Measures for `dsr bench all`, step by step. A finished part is not measured again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from dsr.bench.all.files import Maker, card_of_source
from dsr.bench.all.parts import FinishedParts, Part
from dsr.bench.all.request import SPEED_OF_FILE, SPEED_OF_MODEL, AllRequest, ModelRequest, model_request
from dsr.bench.all.rows import ITSELF, AllBench, ModelResult, display_name, solved_problems
from dsr.bench.experts import bench as experts
from dsr.bench.quality import bench as quality
from dsr.bench.quality.bench import QualityRequest
from dsr.bench.reason import bench as reason
from dsr.bench.reason.rows import GREEDY
from dsr.bench.speed import bench as speed
from dsr.experts.profile import EMBEDDED_SUITE
from dsr.models.model import Model
from dsr.models.sampling import SamplingRequest
from dsr.store.measurement import PREDICTED, Figure, Measurement
from dsr.suites import suites
from runtime.base.errors import Aborted, DsrError
from runtime.base.events import Listener, Notice
from runtime.base.run import Run
from runtime.gguf.card import ModelCard
from runtime.placement.memory import need

Keep = Callable[[Sequence[Measurement]], None]
T = TypeVar("T")


def measure(models: Sequence[Model], request: AllRequest, run: Run, *, keep: Keep = lambda rows: None) -> AllBench:
    """Measures the parts that are missing; `keep` gets new rows at once.

    When a part fails, a notice says so and the rest goes on. Raises the errors of `model_request` before anything is
    measured, Aborted if it is stopped before the first result, and the first model's error if all models fail.
    """
    failed: list[tuple[str, DsrError]] = []

    def leave_out(model: Model, error: DsrError) -> None:
        failed.append((display_name(model), error))
        run.listen(Notice(f"{display_name(model)} is left out: {error.message}"))

    results: list[ModelResult] = []
    interrupted = False
    for model, card, of_model in _model_requests(models, request, leave_out, run.listen):
        try:
            with FinishedParts(model, card, request, of_model, run.threads) as parts:
                work = _Work(model, card, request, of_model, parts, keep, run)
                results.append(work.result())
                interrupted = work.stopped
        except Aborted:
            interrupted = True
        except DsrError as error:
            leave_out(model, error)
        if interrupted:
            break
    if not any(result.files for result in results):
        if interrupted:
            raise Aborted("stopped before anything was measured")
        if failed:
            raise failed[0][1]
    return AllBench(tuple(results), tuple(failed), interrupted)


def _model_requests(
    models: Sequence[Model],
    request: AllRequest,
    leave_out: Callable[[Model, DsrError], None],
    listen: Listener,
) -> list[tuple[Model, ModelCard, ModelRequest]]:
    """Returns the models that can be measured, each with what to measure."""
    cards: list[tuple[Model, ModelCard]] = []
    for model in models:
        try:
            cards.append((model, card_of_source(model)))
        except DsrError as error:
            leave_out(model, error)
    names = [model.path.stem for model in models]
    return [(model, card, model_request(request, model, card, names, listen)) for model, card in cards]


@dataclass(slots=True)
class _Work:
    """Measures one model."""

    model: Model
    card: ModelCard
    request: AllRequest
    model_request: ModelRequest
    parts: FinishedParts
    keep: Keep
    run: Run
    stopped: bool = False
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def result(self) -> ModelResult:
        """Makes the files and measures each of them, then strategies and experts with the model itself."""
        self.left_out += self.model_request.refused
        made = self._make()
        self._try("quality", partial(self._quality, made))
        for recipe, model in made.items():
            self._try(recipe, partial(self._speed, recipe, model))
            self._try(recipe, partial(self._answers, recipe, model))
            if recipe != ITSELF and self.request.keep is None and not self.stopped:
                model.path.unlink(missing_ok=True)
        strategies = self._try("strategies", self._strategies)
        pruned = self._try("experts", self._experts)
        recipes = (ITSELF, *self.model_request.recipes)
        return ModelResult(
            name=display_name(self.model),
            source_bits=self.card.bits_per_weight,
            against=display_name(self._against),
            suite=self.model_request.suite.name if self.model_request.suite else None,
            files=tuple(file for recipe in recipes if (file := self.parts.file(recipe)) is not None),
            strategies=strategies,
            experts=pruned,
            left_out=tuple(self.left_out),
        )

    @property
    def _against(self) -> Model:
        return self.request.against or self.model

    def _try(self, what: str, do: Callable[[], T]) -> T | None:
        """Runs one step. If it fails, notes why; if it is stopped, no later step begins."""
        if self.stopped:
            return None
        try:
            return do()
        except Aborted:
            self.stopped = True
        except DsrError as error:
            self.left_out.append((what or "the model itself", error.message))
            self.run.listen(Notice(f"{what or display_name(self.model)} is left out: {error.message}"))
        return None

    def _make(self) -> Mapping[str, Model]:
        """Returns the files of which a part is missing, by recipe."""
        maker = Maker(
            self.model,
            self.request.keep or self.parts.folder,
            replace(self.run, threads=None),  # the number of threads is for measuring, not for quantizing
            allow_requantize=self.request.allow_requantize,
        )
        planned, refused = maker.planned([name for name in self.model_request.recipes if not self.parts.complete(name)])
        self.left_out += refused
        maker.check_room(planned)
        made = {} if self.parts.complete(ITSELF) else {ITSELF: self.model}
        for each in planned:
            model = self._try(each.recipe, partial(maker.make, each))
            if model is not None:
                made[each.recipe] = model
        for recipe, model in made.items():
            card = model.card
            name = model.reference if model.embedded else model.path.stem
            facts = {"name": name, "digest": card.header_digest, "size": int(card.size), "bits": card.bits_per_weight}
            self.parts.add("file", recipe, facts)
        return made

    def _quality(self, made: Mapping[str, Model]) -> None:
        """Measures the loss of all files, with one reading of the reference."""
        missing = {recipe: model for recipe, model in made.items() if self.parts.missing("quality", recipe)}
        recipes = {model.absolute_reference: recipe for recipe, model in missing.items()}

        def save(row: Measurement) -> None:
            recipe = recipes[row.model]
            self._add("quality", recipe, [self._with_command(recipe, row)])

        if missing:
            options = QualityRequest(against=self._against, chunks=self.request.chunks)
            found = quality.measure(list(missing.values()), options, self.run, keep=save)
            self.left_out += [(Path(model).stem, error.message) for model, error in found.failed]
            self.stopped = found.interrupted

    def _speed(self, recipe: str, model: Model) -> None:
        if not self.parts.missing("speed", recipe):
            return
        card = model.card
        options = replace(SPEED_OF_FILE if recipe else SPEED_OF_MODEL, threads=(self.run.threads,))
        found = speed.measure(speed.jobs(model, card, options), self.run)
        if found.failures:
            raise DsrError(found.failures[0].why)
        self.stopped = found.interrupted
        if not found.interrupted:
            rows = [self._with_command(recipe, _with_prediction(row, card)) for row in found.rows]
            self._add("speed", recipe, rows)

    def _add(self, part: Part, recipe: str, rows: Sequence[Measurement]) -> None:
        self.parts.add(part, recipe, {"rows": [row.json() for row in rows]})
        self.keep(rows)

    def _with_command(self, recipe: str, row: Measurement) -> Measurement:
        """Returns the row with the command that repeats it. A file that will be deleted is named without its folder."""
        gone = recipe != ITSELF and self.request.keep is None
        return replace(row, model=Path(row.model).name if gone else row.model, command=self.request.command)

    def _answers(self, recipe: str, model: Model) -> None:
        if self.model_request.suite is None or not self.parts.missing("answers", recipe):
            return
        found = self._reason(model, (GREEDY,), self.request.limit, None)
        self.stopped = found.interrupted
        if found.interrupted:
            return
        score = found.scores[0]
        solved = solved_problems(found)[score.row.label]
        facts = {"accuracy": score.accuracy, "low": score.low, "high": score.high, "solved": dict(solved)}
        self.parts.add("answers", recipe, facts)
        self.keep([self._with_command(recipe, row) for row in found.measurements])

    def _strategies(self) -> reason.ReasonBench | None:
        if not self.model_request.strategies:
            return None
        limit = self.request.questions_of_strategies
        found = self._reason(self.model, self.model_request.strategies, limit, self.request.temperature)
        self._finished("strategies", found.interrupted, found.measurements)
        return found

    def _experts(self) -> experts.ExpertsBench | None:
        suite = self.model_request.suite
        if suite is None or not self.model_request.experts:
            return None
        limit = self.request.questions_of_strategies
        tasks = len({problem.task for problem in suite.problems})
        options = experts.ExpertsBenchRequest(
            suite=self.model_request.suite_name,
            keeps=self.model_request.experts,
            profiles=EMBEDDED_SUITE if suite.name == suites.EMBEDDED else None,
            limit=None if limit is None else max(1, limit // tasks),
            max_tokens=self.request.max_tokens or experts.MAX_TOKENS,
        )
        found = experts.measure(self.model, options, self.run)
        self._finished("experts", found.interrupted, found.measurements)
        return found

    def _finished(self, part: Part, interrupted: bool, rows: Sequence[Measurement]) -> None:
        """Saves a part and its rows once, when it is complete."""
        self.stopped = interrupted
        if not interrupted and self.parts.missing(part):
            self.parts.add(part)
            self.keep([self._with_command(ITSELF, row) for row in rows])

    def _reason(
        self, model: Model, strategies: tuple[str, ...], limit: int | None, temperature: float | None
    ) -> reason.ReasonBench:
        options = reason.ReasonRequest(
            suite=self.model_request.suite_name,
            strategies=strategies,
            limit=limit,
            sampling=SamplingRequest(temperature=temperature, max_tokens=self.request.max_tokens),
        )
        return reason.measure(model, options, self.run)


def _with_prediction(row: Measurement, card: ModelCard) -> Measurement:
    """Returns a row of memory with its prediction, which needs no measured speeds of the machine."""
    name = f"{PREDICTED}bytes"
    if row.test != "memory" or name in row.figures:
        return row
    opened = row.parameters
    predicted = need(card, int(opened["context"] or 0), int(opened["slots"] or 0), str(opened["kv_type"]))
    return replace(row, figures={**row.figures, name: Figure(predicted.total)})
