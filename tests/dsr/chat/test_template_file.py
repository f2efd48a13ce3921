"""A chat template from a file: Jinja, or JSON that holds one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsr.chat.template_file import read_template
from runtime.base.errors import UsageError


@pytest.mark.parametrize(
    "text", ["{{ bos_token }}", "{%- for m in messages %}{% endfor %}", "{# {} #}", "plain", "12", "[]"]
)
def test_a_text_is_the_template_itself(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.jinja").write_text(text)
    assert read_template(tmp_path / "a.jinja") == text


@pytest.mark.parametrize(
    "templates",
    ["{{ bos_token }}", [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "{{ bos_token }}"}]],
)
def test_the_template_of_a_tokenizer_config_is_found(tmp_path: Path, templates: object) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "chat_template": templates}))
    assert read_template(tmp_path / "tokenizer_config.json") == "{{ bos_token }}"


@pytest.mark.parametrize("template", [3, None, [{"name": "rag"}, 3]])
def test_json_without_a_template_is_refused(tmp_path: Path, template: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"chat_template": template}))
    with pytest.raises(UsageError, match=r"config\.json: holds no chat template"):
        read_template(tmp_path / "config.json")
