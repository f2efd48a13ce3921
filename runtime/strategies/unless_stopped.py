"""Work of a strategy that may be left out: a stop, the budget or a full context ends it alone."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from runtime.base.errors import Aborted, DoesNotFit, Lost
from runtime.base.events import Event, Interrupted, Notice
from runtime.strategies.task import Task

T = TypeVar("T")


def unless_stopped(task: Task, work: Generator[Event, None, T], undone: str) -> Generator[Event, None, T | None]:
    """What `work` returns; None when something prevented it. `undone`, such as "not judged", tells what is left out.

    Raises Lost.
    """
    try:
        return (yield from work)
    except Lost:
        raise
    except Aborted as error:
        if task.allowance is None or not task.allowance.over:
            yield Interrupted(error)
    except DoesNotFit as error:
        yield Notice(f"{undone}: {error.message}")
    return None
