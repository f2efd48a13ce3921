"""`dsr quantize --save-recipe`: the plan in a file that `--recipe` reads."""

from __future__ import annotations

from pathlib import Path

from dsr.quantize.decide import Decision
from quant.recipe.saved import recipe_text
from runtime.base.disk_errors import disk_errors
from runtime.base.errors import UsageError
from runtime.base.files import write_atomically


def check_recipe_place(path: Path, *, force: bool) -> None:
    """Raise UsageError for a file that would be overwritten, and for a folder."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint="give the name of the file to write: --save-recipe FILE")
    if path.exists() and not force:
        raise UsageError(f"{path} exists already", hint="give another name, or --force to replace it")


def save_recipe(path: Path, decision: Decision) -> None:
    """Write the plan as a recipe that gives the same file again. Raises DsrError (no place), DoesNotFit (no room)."""
    summary = f"{decision.source.name} at {decision.plan.bits_per_weight:.2f} bits per weight"
    with disk_errors(path):
        write_atomically(path, recipe_text(decision.plan, summary, f"[C] dsr quantize: {decision.origin}").encode())
