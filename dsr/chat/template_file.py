"""The chat template in a file that a person named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runtime.base.errors import UsageError
from runtime.base.texts import read_text


def read_template(path: Path) -> str:
    """A file of Jinja, or the template in a `tokenizer_config.json` or `chat_template.json`.

    Raises NotFound, and UsageError for a file that is no text, or JSON without a template.
    """
    text = read_text(path)
    try:
        # Jinja cannot be JSON: "{" is followed by "{", "%" or "#" there.
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(found, dict):
        return text
    template = _default(found.get("chat_template"))
    if template is None:
        raise UsageError(f"{path}: holds no chat template", hint="name a file of Jinja, or a tokenizer_config.json")
    return template


def _default(templates: Any) -> str | None:
    """The template named "default" of a list of named ones; or the only one, a text."""
    if isinstance(templates, list):
        named = {each.get("name"): each.get("template") for each in templates if isinstance(each, dict)}
        templates = named.get("default")
    return templates if isinstance(templates, str) else None
