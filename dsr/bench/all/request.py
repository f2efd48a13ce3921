"""The request of `dsr bench all`, and what follows from it for each model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsr.bench.all.files import recipes_of
from dsr.bench.experts.bench import KEEPS
from dsr.bench.reason.bench import ReasonRequest
from dsr.bench.reason.rows import DEFAULT_STRATEGIES, strategy_rows
from dsr.bench.speed.bench import SpeedRequest
from dsr.loading.options import AUTO
from dsr.models.library import find
from dsr.models.model import Model
from dsr.models.references import EMBEDDED
from dsr.suites import suites
from dsr.suites.problem import Suite
from quant.experts.prune_plan import check_keep, keep_count
from runtime.base.errors import UsageError
from runtime.base.events import Listener, ignore
from runtime.gguf.card import ModelCard
from runtime.gguf.reader import read_card

NONE = "none"

# Three repetitions, not five, since many files are measured. How voting scales is measured with the model itself.
_REPETITIONS = 3
SPEED_OF_MODEL = SpeedRequest(repetitions=_REPETITIONS)
SPEED_OF_FILE = SpeedRequest(votes=(max(SPEED_OF_MODEL.votes),), repetitions=_REPETITIONS)


@dataclass(frozen=True, slots=True)
class AllRequest:
    """The options of `dsr bench all`.

    `recipes`, `suites` and `strategies`: values for all models, or MODEL=VALUE for one; "none" means none. Without a
    suite, the embedded model gets the built-in questions and other models none. Without strategies, those run that
    share samples. `against`: the reference; default: the model itself. `limit`: questions for each file;
    `strategy_limit`: for each strategy and each pruning. `again`: repeat disturbed speeds. `keep`: the folder for new
    files; without it they are deleted after measuring. `command`: the command line.
    """

    recipes: tuple[str, ...] = ()
    against: Model | None = None
    suites: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()
    temperature: float | None = None
    experts: tuple[str, ...] = KEEPS
    limit: int | None = None
    strategy_limit: int | None = None
    max_tokens: int | None = None
    chunks: int = 16
    again: bool = False
    keep: Path | None = None
    allow_requantize: bool = False
    command: str = ""

    @property
    def questions_of_strategies(self) -> int | None:
        return self.strategy_limit or self.limit


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What to measure of one model; an empty field means nothing. `suite_name` is the name of `suite`.

    `refused`: numbers of experts that this model cannot have, with the reasons.
    """

    recipes: tuple[str, ...]
    suite: Suite | None
    suite_name: str
    strategies: tuple[str, ...]
    experts: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]


def model_request(
    request: AllRequest, model: Model, card: ModelCard, names: Sequence[str], listen: Listener = ignore
) -> ModelRequest:
    """Returns what to measure of one model; `names` are those of all models. Checks all that needs no measuring.

    Raises UsageError (no recipe, strategy or number of experts), NotFound (a suite), and the errors of the hub.
    """
    name = model.path.stem
    suite_name = next(iter(of_model(request.suites, name, names)), _own_questions(card))
    suite = None if suite_name == NONE else suites.find(suite_name, listen)
    strategies = tuple(listed(",".join(of_model(request.strategies, name, names)))) or DEFAULT_STRATEGIES
    if strategies != (NONE,):
        strategy_rows(strategies, ReasonRequest().samples)
    experts, refused = _experts(request.experts, card)
    return ModelRequest(
        recipes=recipes_of(of_model(request.recipes, name, names), experts=bool(card.experts)),
        suite=suite,
        suite_name=suite_name,
        strategies=() if suite is None or strategies == (NONE,) else strategies,
        experts=() if suite is None else experts,
        refused=refused,
    )


def of_model(values: Sequence[str], name: str, names: Sequence[str]) -> tuple[str, ...]:
    """Returns the values given as MODEL=VALUE for this model; without any, the values that name no model."""
    own = [value for model, equals, value in (each.partition("=") for each in values) if equals and model == name]
    return tuple(own or [each for each in values if each.partition("=")[0] not in names])


def listed(text: str) -> list[str]:
    """Returns the words of 'a, b,a', each once: a and b."""
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _own_questions(card: ModelCard) -> str:
    """Returns the suite of the embedded model for models of its kind, and "none" for other models."""
    own = read_card(find(EMBEDDED).path)
    same = (card.architecture, card.name, card.vocab_size) == (own.architecture, own.name, own.vocab_size)
    return suites.EMBEDDED if same else NONE


def _experts(asked: Sequence[str], card: ModelCard) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Returns the numbers of experts that this model can have, and the others with reasons."""
    if not card.experts or tuple(asked) == (NONE,):
        return (), ()
    found, refused = [], []
    for keep in asked:
        number = card.experts if keep == AUTO else keep_count(keep, card.experts)
        try:
            check_keep(card, number)
        except UsageError as error:
            refused.append((f"keep {keep}", error.message))
        else:
            found.append(keep)
    return tuple(found), tuple(refused)
