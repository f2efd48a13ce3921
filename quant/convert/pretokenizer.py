"""Finds llama.cpp's pre-tokenizer for a tokenizer.json: the value of `tokenizer.ggml.pre`.

llama.cpp's converter tokenizes a test text and looks up the hash of the result. That needs a tokenizer library and
works only for known vocabularies. dsr compares the regular expressions, so it also recognises a new vocabulary. Sources
of the expressions: regex_exprs of llama_vocab with its comments (src/llama-vocab.cpp of llama.cpp as vendored in
llama-cpp-python 0.3.36), and the tokenizer.json of the models named below.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.base.errors import BadModelFile, Incompatible, UsageError
from runtime.gguf.engine_lists import PRE_TOKENIZERS

Step = tuple[str, ...]

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_START = r"[^\r\n\p{L}\p{N}]?"
_SIGNS = r" ?[^\s\p{L}\p{N}]+"


def _words(digits: str) -> str:
    """Returns the expression of GPT-4 (cl100k) and models after it. They differ in the digits per word."""
    return rf"{_CONTRACTIONS}|{_START}\p{{L}}+|{digits}|{_SIGNS}[\r\n]*|{_TAIL}"


def _cased(contractions: str, digits: str) -> str:
    """Returns the expression of GPT-4o (o200k) and models after it. It also splits words at capitals."""
    words = f"{_START}{_UPPER}*{_LOWER}+{contractions}|{_START}{_UPPER}+{_LOWER}*{contractions}"
    return rf"{words}|{digits}|{_SIGNS}[\r\n/]*|{_TAIL}"


def _split(expression: str) -> Step:
    return ("split", expression)


_BYTES, _BYTES_AND_WORDS, _DIGITS = ("bytes",), ("bytes and words",), ("digits",)
_QWEN_35 = rf"{_CONTRACTIONS}|{_START}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_TAIL}"
_SEED_CODER = rf"{_CONTRACTIONS}|{_START}\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_TAIL}"
_DEEPSEEK_3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_TAIL}"
)
_CHINESE = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_CHINESE_AND_MORE = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_PUNCTUATION = "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"
_LETTERS = r"\s?[A-Za-z"  # stands for the list of 60 ranges of letters in DeepSeek's first generations

# Steps of a pre-tokenizer, the last of which turns text into bytes. The comment names the models that use them.
_CHAINS: dict[tuple[Step, ...], str] = {
    # Llama 3, R1-Distill-Llama, Falcon 3
    (_split(_words(r"\p{N}{1,3}")), _BYTES): "llama-bpe",
    # Qwen 2, 2.5 and 3; with a token before every text R1-Distill-Qwen
    (_split(_words(r"\p{N}")), _BYTES): "qwen2",
    # DeepSeek V3 and R1
    (_split(r"\p{N}{1,3}"), _split(_CHINESE), _split(_DEEPSEEK_3), _BYTES): "deepseek-v3",
    # DeepSeek LLM and V2
    (
        _split(r"[\r\n]"),
        _split(_LETTERS),
        _split(_PUNCTUATION),
        _split(r"\s+$"),
        _split(_CHINESE_AND_MORE),
        _DIGITS,
        _BYTES,
    ): "deepseek-llm",
    # DeepSeek Coder
    (
        _split(r"[\r\n]"),
        _split(r"\s?\p{L}+"),
        _split(r"\s?\p{P}+"),
        _split(_CHINESE_AND_MORE),
        _DIGITS,
        _BYTES,
    ): "deepseek-coder",
    # SmolLM, StarCoder 2
    (_DIGITS, _BYTES_AND_WORDS): "smollm",
    # GPT-2
    (_BYTES_AND_WORDS,): "gpt-2",
    # Qwen 3.5
    (_split(_QWEN_35), _BYTES): "qwen35",
    # MiniCPM 5
    (_split(r"\p{N}{1,3}"), _split(_words(r"\p{N}+")), _BYTES): "minicpm5",
    # Seed-Coder
    (_split(_SEED_CODER), _BYTES): "seed-coder",
    # Mistral Nemo
    (_split(_cased("", r"\p{N}")), _BYTES): "tekken",
    # GPT-4o, Llama 4
    (_split(_cased(f"{_CONTRACTIONS}?", r"\p{N}{1,3}")), _BYTES): "gpt-4o",
}


def recognise(tokenizer: Mapping[str, Any], path: Path) -> str:
    """The name of the pre-tokenizer that `tokenizer`, the object of the tokenizer.json at `path`, describes.

    Raises Incompatible for an unknown one, with its steps."""
    steps, normalizer = _steps(tokenizer.get("pre_tokenizer"), path), _normalizer(tokenizer.get("normalizer"))
    found = _CHAINS.get(steps) if normalizer in ("", "NFC") else None
    if found is None:
        seen = " + ".join(_shown(step) for step in steps) or "none"
        seen += f", after {normalizer}" if normalizer not in ("", "NFC") else ""
        raise Incompatible(
            f"{path}: its pre-tokenizer is not recognised: {seen}",
            hint=f"give its name with --pre NAME, for example {', '.join(list(_CHAINS.values())[:5])}",
        )
    return "deepseek-r1-qwen" if found == "qwen2" and _begins_deepseek(tokenizer) else found


def check_name(pre: str) -> str:
    """Raise UsageError unless the engine knows a pre-tokenizer of this name."""
    if pre not in PRE_TOKENIZERS:
        raise UsageError(f"--pre {pre}: no such pre-tokenizer", hint=f"known are {', '.join(sorted(PRE_TOKENIZERS))}")
    return pre


def _steps(value: Any, path: Path) -> tuple[Step, ...]:
    """Returns the steps in a normal form: different spellings of one step become equal."""
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise BadModelFile(path, "its pre_tokenizer is not a JSON object")
    kind = value.get("type")
    if kind == "Sequence" and isinstance(value.get("pretokenizers"), list):
        return tuple(step for each in value["pretokenizers"] for step in _steps(each, path))
    if kind == "ByteLevel" and not value.get("add_prefix_space"):
        return (_BYTES_AND_WORDS if value.get("use_regex", True) else _BYTES,)
    if kind == "Digits" and value.get("individual_digits"):
        return (_DIGITS,)
    pattern = value.get("pattern")
    expression = pattern.get("Regex") if isinstance(pattern, Mapping) else None
    # Two spellings of "each match becomes a piece".
    isolated = (value.get("behavior"), bool(value.get("invert"))) in (("Isolated", False), ("Removed", True))
    if kind == "Split" and isinstance(expression, str) and isolated:
        return (("split", _spelling(expression)),)
    return (("other", _spelling(str(kind)[:60]), _spelling(str(expression or ""))),)


def has_bytes(pre_tokenizer: Any) -> bool:
    """Whether a pre-tokenizer turns text into bytes, as byte-level BPE needs it."""
    if not isinstance(pre_tokenizer, Mapping):
        return False
    steps = pre_tokenizer.get("pretokenizers")
    return pre_tokenizer.get("type") == "ByteLevel" or (isinstance(steps, list) and any(map(has_bytes, steps)))


def _spelling(expression: str) -> str:
    """Returns the expression with line ends as escapes, and the long list of letters shortened to its beginning."""
    listed = expression.startswith(_LETTERS) and expression.endswith("]+") and "|" not in expression
    return _LETTERS if listed else expression.replace("\r", r"\r").replace("\n", r"\n")


def _normalizer(value: Any) -> str:
    """The kind of normalizer; "" for none."""
    if not isinstance(value, Mapping):
        return ""
    listed = value.get("normalizers")
    if value.get("type") == "Sequence" and isinstance(listed, list):
        return " + ".join(filter(None, map(_normalizer, listed)))
    return _spelling(str(value.get("type"))[:60])


def _begins_deepseek(tokenizer: Mapping[str, Any]) -> bool:
    """Whether DeepSeek's begin-of-text token is added to every text, as in R1-Distill-Qwen and not in Qwen."""
    return "begin▁of▁sentence" in str(tokenizer.get("post_processor"))


def _shown(step: Step) -> str:
    if step[0] == "split":
        return f"Split({step[1][:60]}{'...' if len(step[1]) > 60 else ''})"
    if step[0] == "other":
        return f"{step[1]}({step[2][:60]})" if step[2] else step[1]
    return {"bytes": "ByteLevel", "bytes and words": "ByteLevel(use_regex)", "digits": "Digits"}[step[0]]
