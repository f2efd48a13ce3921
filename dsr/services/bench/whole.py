"""`dsr bench all`: the whole row of each file: size, loss, accuracy, speed and memory; then strategies and pruning.

The files that recipes make of a model are rows like the model itself. Every part of a row is kept as soon as it is
measured, so that the same command goes on where it was stopped, and measures nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dsr import __version__, paths, suites
from dsr.library import LocalModel, find
from dsr.records import PREDICTED, Figure, Row
from dsr.services.bench import quality, speed
from dsr.services.bench.files import Maker, card_of_source, recipes_of
from dsr.services.bench.quality import QualityRequest
from dsr.services.bench.speed import SpeedRequest
from dsr.services.chat import SamplingRequest, reference_of
from dsr.services.experts import bench as experts
from dsr.services.experts.profiling import EMBEDDED_SUITE
from dsr.services.reason import bench as reason
from dsr.services.reason import report as reason_report
from dsr.services.reason.grid import GREEDY
from dsr.services.reason.ledger import Ledger
from dsr.suites import Suite
from runtime.backend import Stop
from runtime.card import ModelCard
from runtime.errors import Aborted, DsrError
from runtime.events import Listener, Notice, ignore
from runtime.gguf import read_card
from runtime.memory import need

NONE = "none"
ITSELF = ""  # stands for a recipe where the file is the model itself

# What is read and decoded, and how often; less than `dsr bench speed` does, since many files are measured.
SPEED = SpeedRequest(prompts=(256,), generated=(64,), votes=(8,), repetitions=3)


@dataclass(frozen=True, slots=True)
class WholeRequest:
    """What the options of `dsr bench all` say.

    `recipes` are as `recipes_of` reads them. Without `against` the model itself is the reference of its files. `suite`
    None asks the built-in questions of the embedded model, and no other. `limit` questions are asked of each file,
    `strategy_limit` of each strategy and with each pruning. No `strategies` are all that the shared draws serve. `keep`
    is where made files stay; without, they go when they are measured.
    """

    recipes: tuple[str, ...] = ()
    against: LocalModel | None = None
    suite: str | None = None
    strategies: tuple[str, ...] = ()
    temperature: float | None = None
    experts: tuple[str, ...] = experts.KEEPS
    limit: int | None = None
    strategy_limit: int | None = None
    max_tokens: int | None = None
    chunks: int = 16
    keep: Path | None = None
    threads: int | None = None
    allow_requantize: bool = False


@dataclass(frozen=True, slots=True)
class Answers:
    """To a suite's questions, greedily drawn. `solved`: by the name of the question."""

    accuracy: float
    low: float
    high: float
    solved: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class File:
    """One row: what was measured of a file, None and empty for what was not. `recipe` is ITSELF for the model."""

    recipe: str
    name: str
    digest: str
    size: int
    bits_per_weight: float
    quality: Row | None
    speed: tuple[Row, ...]
    answers: Answers | None

    def json(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe or None,
            "file": self.name,
            "bytes": self.size,
            "bpw": round(self.bits_per_weight, 4),
            "quality": None if self.quality is None else self.quality.json(),
            "speed": [row.json() for row in self.speed],
            "answers": None if self.answers is None else asdict(self.answers),
        }


@dataclass(frozen=True, slots=True)
class Subject:
    """One model. `source_bits` are those of its own weights; `left_out` says what was not measured, and why."""

    name: str
    source_bits: float
    against: str
    suite: str | None
    files: tuple[File, ...]
    strategies: reason.Bench | None
    experts: experts.Bench | None
    left_out: tuple[tuple[str, str], ...]

    def file(self, recipe: str) -> File | None:
        return next((file for file in self.files if file.recipe == recipe), None)


@dataclass(frozen=True, slots=True)
class Whole:
    """What came of it; `failed` are models of which nothing was measured, and why."""

    subjects: tuple[Subject, ...]
    failed: tuple[tuple[str, DsrError], ...]
    interrupted: bool

    @property
    def rows(self) -> tuple[Row, ...]:
        files = [file for subject in self.subjects for file in subject.files]
        return tuple(row for file in files for row in (*([file.quality] if file.quality else []), *file.speed))

    def json(self) -> dict[str, Any]:
        return {
            "models": [
                {
                    "model": subject.name,
                    "against": subject.against,
                    "suite": subject.suite,
                    "rows": [file.json() for file in subject.files],
                    "strategies": None if subject.strategies is None else subject.strategies.json(),
                    "experts": None if subject.experts is None else subject.experts.json(),
                    "left_out": [{"what": what, "why": why} for what, why in subject.left_out],
                }
                for subject in self.subjects
            ],
            "failed": [{"model": model, "why": error.message} for model, error in self.failed],
            "interrupted": self.interrupted,
        }


def run(
    models: Sequence[LocalModel],
    request: WholeRequest,
    *,
    keep: Callable[[Sequence[Row]], None] = lambda rows: None,
    stop: Stop | None = None,
    listen: Listener = ignore,
) -> Whole:
    """Measure what was not measured before; `keep` is given new rows as soon as there are any.

    What fails is told and the rest goes on. Raises UsageError (a recipe, a strategy), NotFound (a suite), Aborted when
    nothing was measured yet, and what the first model failed with when all did.
    """
    for model in models:
        recipes_of(request.recipes, model.path.stem)
    subjects: list[Subject] = []
    failed: list[tuple[str, DsrError]] = []
    interrupted = False
    for model in models:
        try:
            with _measuring(model, request, keep, stop or Stop(), listen) as work:
                subjects.append(work.subject())
                interrupted = work.stopped
        except Aborted:
            interrupted = True
        except DsrError as error:
            failed.append((_name(model), error))
            listen(Notice(f"{_name(model)} is left out: {error.message}"))
        if interrupted:
            break
    if not any(subject.files for subject in subjects):
        if interrupted:
            raise Aborted("stopped before anything was measured")
        if failed:
            raise failed[0][1]
    return Whole(tuple(subjects), tuple(failed), interrupted)


@dataclass(slots=True)
class _Work:
    """One model being measured. `parts` keeps what was measured."""

    model: LocalModel
    card: ModelCard
    request: WholeRequest
    suite: Suite | None
    maker: Maker
    parts: Ledger
    keep: Callable[[Sequence[Row]], None]
    stop: Stop
    listen: Listener
    stopped: bool = False
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def subject(self) -> Subject:
        """The story: make the files, measure each in all ways, then strategies and experts with the model itself."""
        recipes = recipes_of(self.request.recipes, self.model.path.stem)
        planned, refused = self.maker.planned([name for name in recipes if not self._complete(name)])
        self.left_out += refused
        self.maker.check_room(planned)
        made = {} if self._complete(ITSELF) else {ITSELF: self.model}
        for each in planned:
            with self._step(each.recipe):
                self._check_stop()
                made[each.recipe] = self.maker.make(each)
        for recipe, local in made.items():
            self._note(recipe, local)
        with self._step("quality"):
            self._quality(made)
        for recipe, local in made.items():
            with self._step(recipe):
                self._speed(recipe, local)
            with self._step(recipe):
                self._answers(recipe, local)
            if recipe != ITSELF and self.request.keep is None and not self.stopped:
                local.path.unlink(missing_ok=True)
        strategies, pruned = None, None
        with self._step("strategies"):
            strategies = self._strategies()
        with self._step("experts"):
            pruned = self._experts()
        return Subject(
            name=_name(self.model),
            source_bits=self.card.bits_per_weight,
            against=_name(self.against),
            suite=self.suite.name if self.suite else None,
            files=tuple(file for recipe in (ITSELF, *recipes) if (file := self._file(recipe)) is not None),
            strategies=strategies,
            experts=pruned,
            left_out=tuple(self.left_out),
        )

    @property
    def against(self) -> LocalModel:
        return self.request.against or self.model

    def _check_stop(self) -> None:
        """What was stopped begins nothing more."""
        if self.stopped:
            raise Aborted

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        """A block that may be stopped, or fail, which is told."""
        try:
            yield
        except Aborted:
            self.stopped = True
        except DsrError as error:
            self.left_out.append((what or "the model itself", error.message))
            self.listen(Notice(f"{what or _name(self.model)} is left out: {error.message}"))

    def _key(self, part: str, recipe: str) -> tuple[str, str, str]:
        """Names a part, with all that makes it differ."""
        request, conditions = self.request, [__version__, recipe]
        if part == "quality":
            conditions += [read_card(self.against.path).header_digest, str(request.chunks)]
        elif part == "speed":
            conditions += [json.dumps(asdict(SPEED)), str(request.threads)]
        elif part == "answers":
            asked = self.suite.digest if self.suite else NONE
            conditions += [asked, str(request.limit), str(request.max_tokens)]
        elif part in ("strategies", "experts"):
            conditions += [self.suite.digest if self.suite else NONE, str(request.strategy_limit or request.limit)]
            conditions += [*request.strategies, NONE, *request.experts, str(request.temperature)]
            conditions += [str(request.max_tokens)]
        return part, recipe, hashlib.sha256("\n".join(conditions).encode()).hexdigest()[:16]

    def _has(self, part: str, recipe: str) -> bool:
        return self._key(part, recipe) in self.parts

    def _complete(self, recipe: str) -> bool:
        wanted = ["file", "quality", "speed", *(["answers"] if self.suite else [])]
        return all(self._has(part, recipe) for part in wanted)

    def _add(self, part: str, recipe: str, body: Mapping[str, Any]) -> None:
        if not self._has(part, recipe):
            self.parts.add({"key": list(self._key(part, recipe)), **body})

    def _note(self, recipe: str, local: LocalModel) -> None:
        card = read_card(local.path)
        name = local.path.stem if not local.embedded else local.reference
        facts = {"name": name, "digest": card.header_digest, "size": int(card.size), "bits": card.bits_per_weight}
        self._add("file", recipe, facts)

    def _quality(self, made: Mapping[str, LocalModel]) -> None:
        """All files on one reading of the reference."""
        self._check_stop()
        missing = {recipe: local for recipe, local in made.items() if not self._has("quality", recipe)}
        recipes = {reference_of(local): recipe for recipe, local in missing.items()}

        def hear(row: Row) -> None:
            self._add("quality", recipes[row.model], {"rows": [row.json()]})
            self.keep([row])

        if missing:
            asked = QualityRequest(against=self.against, chunks=self.request.chunks, threads=self.request.threads)
            found = quality.run(list(missing.values()), asked, keep=hear, stop=self.stop, listen=self.listen)
            self.left_out += [(Path(model).stem, error.message) for model, error in found.failed]
            self.stopped = self.stopped or found.interrupted

    def _speed(self, recipe: str, local: LocalModel) -> None:
        self._check_stop()
        if self._has("speed", recipe):
            return
        card = read_card(local.path)
        found = speed.run(speed.jobs(local, card, SPEED), stop=self.stop, listen=self.listen)
        if found.interrupted:
            self.stopped = True
            return
        if found.failures:
            raise DsrError(found.failures[0].why)
        rows = [_with_prediction(row, card) for row in found.rows]
        self._add("speed", recipe, {"rows": [row.json() for row in rows]})
        self.keep(rows)

    def _answers(self, recipe: str, local: LocalModel) -> None:
        self._check_stop()
        if self.suite is None or self._has("answers", recipe):
            return
        found = self._reason(local, (GREEDY,), self.request.limit, self.request.max_tokens, None)
        if found.interrupted:
            self.stopped = True
            return
        score = found.scores[0]
        shares = solved_by(found)[score.line.label]
        facts = {"accuracy": score.accuracy, "low": score.low, "high": score.high, "solved": dict(shares)}
        self._add("answers", recipe, facts)
        self.keep(reason_report.rows(found))

    def _strategies(self) -> reason.Bench | None:
        self._check_stop()
        if self.suite is None or self.request.strategies == (NONE,):
            return None
        asked = self.request
        found = self._reason(self.model, asked.strategies, asked.strategy_limit or asked.limit, None, asked.temperature)
        self._finished("strategies", found.interrupted, reason_report.rows(found))
        return found

    def _finished(self, part: str, interrupted: bool, rows: Sequence[Row]) -> None:
        """Rows are kept once, when all that they stand on is there."""
        self.stopped = self.stopped or interrupted
        if not interrupted and not self._has(part, ITSELF):
            self._add(part, ITSELF, {})
            self.keep(rows)

    def _reason(
        self,
        local: LocalModel,
        strategies: tuple[str, ...],
        limit: int | None,
        max_tokens: int | None,
        temperature: float | None,
    ) -> reason.Bench:
        assert self.suite is not None
        asked = reason.BenchRequest(
            suite=self.request.suite or self.suite.name,
            strategies=strategies,
            limit=limit,
            sampling=SamplingRequest(temperature=temperature, max_tokens=max_tokens),
            threads=self.request.threads,
        )
        return reason.run(local, asked, stop=self.stop, listen=self.listen)

    def _experts(self) -> experts.Bench | None:
        self._check_stop()
        if self.suite is None or not self.card.experts or self.request.experts == (NONE,):
            return None
        limit = self.request.strategy_limit or self.request.limit
        tasks = len({problem.task for problem in self.suite.problems})
        asked = experts.BenchRequest(
            suite=self.request.suite or self.suite.name,
            keeps=self.request.experts,
            profiles=EMBEDDED_SUITE if self.suite.name in suites.BUILT_IN else None,
            limit=None if limit is None else max(1, limit // tasks),
            max_tokens=self.request.max_tokens or experts.MAX_TOKENS,
            threads=self.request.threads,
        )
        found = experts.run(self.model, asked, stop=self.stop, listen=self.listen)
        self._finished("experts", found.interrupted, experts.rows(found))
        return found

    def _file(self, recipe: str) -> File | None:
        if not self._has("file", recipe):
            return None
        facts = self.parts.row(self._key("file", recipe))
        answers = self.parts.row(self._key("answers", recipe)) if self._has("answers", recipe) else None
        quality_rows = self._rows("quality", recipe)
        if answers is not None:
            del answers["key"]
        return File(
            recipe=recipe,
            name=facts["name"],
            digest=facts["digest"],
            size=facts["size"],
            bits_per_weight=facts["bits"],
            quality=quality_rows[0] if quality_rows else None,
            speed=self._rows("speed", recipe),
            answers=None if answers is None else Answers(**answers),
        )

    def _rows(self, part: str, recipe: str) -> tuple[Row, ...]:
        if not self._has(part, recipe):
            return ()
        return tuple(Row.of(body) for body in self.parts.row(self._key(part, recipe))["rows"])


@contextmanager
def _measuring(
    model: LocalModel,
    request: WholeRequest,
    keep: Callable[[Sequence[Row]], None],
    stop: Stop,
    listen: Listener,
) -> Iterator[_Work]:
    card = card_of_source(model)
    suite = suite_of(request, card, listen)
    folder = paths.cache_folder() / "bench-all" / f"{_file_name(model.path.stem)}-{card.header_digest[:8]}"
    maker = Maker(model, request.keep or folder, allow_requantize=request.allow_requantize, stop=stop, listen=listen)
    with Ledger(folder / "parts.jsonl", lambda row: tuple(row["key"])) as parts:
        yield _Work(model, card, request, suite, maker, parts, keep, stop, listen)


def suite_of(request: WholeRequest, card: ModelCard, listen: Listener = ignore) -> Suite | None:
    """The questions for a model. Those that are built in are of the embedded model's own kind: others are not asked
    them unless that is wanted."""
    if request.suite is not None:
        return None if request.suite == NONE else suites.find(request.suite, listen)
    own = read_card(find("nano").path)
    known = (card.architecture, card.name, card.vocab_size) == (own.architecture, own.name, own.vocab_size)
    return suites.find(suites.BUILT_IN[0], listen) if known else None


def _with_prediction(row: Row, card: ModelCard) -> Row:
    """The row of memory with what was predicted, on machines too whose speed was never measured."""
    name = f"{PREDICTED}bytes"
    if row.test != "memory" or name in row.figures:
        return row
    opened = row.parameters
    predicted = need(card, int(opened["context"] or 0), int(opened["slots"] or 0), str(opened["kv_type"]))
    return replace(row, figures={**row.figures, name: Figure(predicted.total)})


def solved_by(bench: reason.Bench) -> Mapping[str, Mapping[str, float]]:
    """Line of the table -> problem -> the share of its decisions that are right."""
    found: dict[str, dict[str, list[float]]] = {}
    for text in (bench.folder / "verdicts.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(text)
        found.setdefault(row["row"], {}).setdefault(row["id"], []).append(float(row["correct"]))
    return {
        line: {problem: sum(each) / len(each) for problem, each in problems.items()} for line, problems in found.items()
    }


def _name(model: LocalModel) -> str:
    """For tables and documents: a file without its folder."""
    return model.reference if model.embedded or model.repo else model.path.name


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.=-]+", "-", text).strip("-.") or "model"
