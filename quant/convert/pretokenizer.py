"""Finds llama.cpp's pre-tokenizer for a tokenizer.json: the value of `tokenizer.ggml.pre`.

It is found by what it does. llama.cpp's converter makes tokens of a test text and looks up the hash of their numbers;
so does dsr, with the steps and the merges of the tokenizer.json itself. If no hash is known of a vocabulary, it is
compared by how it cuts that text, and another one, into pieces. The table of pieces: regex_exprs of llama_vocab with
its comments (src/llama-vocab.cpp of llama.cpp as vendored in llama-cpp-python 0.3.36).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from quant.convert.expression import NotUnderstood
from quant.convert.pretokenizer_hashes import HASHES, TEXT
from quant.convert.splitting import Splitter, around, encode
from runtime.base.errors import BadModelFile, Incompatible, UsageError
from runtime.base.quoted import spelled
from runtime.gguf.engine_lists import PRE_TOKENIZERS

# What the test text lacks: line ends behind signs, scripts, capitals within words, and long numbers.
_MORE = (
    "x;\n\n y!\r\n\r\n=/\n cafx\u0301 don't DON'T we'll Ankara'dan camelCaseHTTPServer 1234567 12 1,234\t\tx = [a_b];\n"
    " \u0645\u0631\u062d\u0628\u0627 \u0939\u093f\u0928\u094d\u0926\u0940 \ud55c\uad6d\uc5b4 "
    "\u30ab\u30bf\u30ab\u30ca\u4eee\u540d \u0e20\u0e32\u0e29\u0e32  \u00bd\u00b2 ~$+<>^`|x        y  "
)

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


_GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA_3, _QWEN_2 = _words(r"\p{N}{1,3}"), _words(r"\p{N}")
_QWEN_35 = rf"{_CONTRACTIONS}|{_START}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_TAIL}"
_SEED_CODER = rf"{_CONTRACTIONS}|{_START}\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_TAIL}"
_WIDE = "|".join(rf"\s{{{count}}}(?!\S)" for count in (512, 256, 128, 64, 32, 16, 8, 4))
_JAIS_2 = _LLAMA_3.replace(r"\s+(?!\S)|\s+", _WIDE + r"|\s{1,2}(?!\S)|\s{1}")
_EXAONE_MOE = (
    rf"{_CONTRACTIONS}|{_START}(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
_SIGN_AND_WORD = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"""
)
_DEEPSEEK_3 = rf"{_SIGN_AND_WORD}[\r\n]*|{_TAIL}"
_SPARK = rf"{_SIGN_AND_WORD}|[\r\n]|\s+(?!\S)|\s+"
_CHINESE = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_CHINESE_AND_MORE = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_PUNCTUATION = "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"
# DeepSeek's first models list 60 ranges of cased letters; these are the ones that the two texts have.
_LETTERS = (
    "\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u0370-\u0373\u0386-\u03ff\u0400-\u0481\u048a-\u052f]+"
)
_NO_SIGNS = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
_HAN = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_KIMI = (
    rf"[\p{{Han}}]+|{_START}{_HAN[0]}*{_HAN[1]}+{_CONTRACTIONS}?|{_START}{_HAN[0]}+{_HAN[1]}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}|{_SIGNS}[\r\n]*|{_TAIL}"
)
_ASIAN = (
    "[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f"
    "\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)
_KOREAN = (
    "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f"
    "\ufe30-\ufe4f]+|[\u3105-\u312f]+|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
)
_THREES = r"\d{1,3}(?=(?:\d{3})*\b)"


@dataclass(frozen=True, slots=True)
class Family:
    """Pre-tokenizers that the engine cuts alike: each expression cuts the pieces of the one before. The first of
    `names` stands for a vocabulary that is not known; `whole` stands for it if the tokenizer takes a piece that is a
    token as it is (ignore_merges)."""

    names: tuple[str, ...]
    expressions: tuple[str, ...]
    whole: str = ""


def _family(names: str, *expressions: str, whole: str = "") -> Family:
    return Family(tuple(names.split()), expressions, whole)


_FAMILIES = (
    _family("smaug-bpe llama-bpe dbrx chatglm-bpe glm4 glm5 llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 "
            "jina-v5-nano", _LLAMA_3, whole="llama-bpe"),
    _family("qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2 bailingmoe "
            "bailingmoe2 llada-moe", _QWEN_2),  # the last three end differently and cut alike
    _family("qwen35", _QWEN_35),
    _family("deepseek-v3 hunyuan-dense joyai-llm hy_v4", r"\p{N}{1,3}", _CHINESE, _DEEPSEEK_3),
    _family("tekken", _cased("", r"\p{N}")),
    _family("gpt-4o minimax-m2 llama4 kanana2 talkie granite-embed-multi-97m",
            _cased(f"{_CONTRACTIONS}?", r"\p{N}{1,3}"), whole="granite-embed-multi-97m"),
    _family("gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jina-v1-en "
            "jina-v2-code roberta-bpe exaone4 mpt olmo jais trillion granite-docling", _GPT_2),
    _family("smollm starcoder refact command-r codeshell exaone minerva-7b mellum2", r"\p{N}", _GPT_2),
    _family("deepseek-llm", r"[\r\n]", _LETTERS, _PUNCTUATION, r"\s+$", _CHINESE_AND_MORE, r"\p{N}"),
    _family("deepseek-coder", r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CHINESE_AND_MORE, r"\p{N}"),
    _family("afmoe", r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", _ASIAN, _DEEPSEEK_3),
    _family("minicpm5", r"\p{N}{1,3}", _words(r"\p{N}+")),
    _family("seed-coder", _SEED_CODER),
    _family("laguna", r"[^\n]+|[\n]+", _QWEN_2),
    _family("exaone-moe", _EXAONE_MOE),
    _family("kimi-k2", _KIMI),
    _family("ufakzeka", _QWEN_2.removeprefix(f"{_CONTRACTIONS}|")),
    _family("tiny_aya cohere2moe", _THREES, _cased(f"{_CONTRACTIONS}?", r"\p{N}{1,3}")),
    _family("youtu", _KOREAN, _cased(f"{_CONTRACTIONS}?", r"\p{N}")),
    _family("jais-2", _JAIS_2),
    _family("spark2_5", r"\p{N}{1,3}", _CHINESE, _SPARK, r"\p{N}"),
    _family("falcon", r"[\p{P}\$\+<=>\^~\|`]+", _GPT_2, r"[0-9][0-9][0-9]"),
    _family("poro-chat bloom gpt3-finnish", _NO_SIGNS),
    _family("viking", _NO_SIGNS, r"\p{N}"),
)  # fmt: skip


def recognise(tokenizer: Mapping[str, Any], path: Path) -> str:
    """The name of the pre-tokenizer of `tokenizer`, the object of the tokenizer.json at `path`.

    Raises Incompatible for an unknown one, with its steps; BadModelFile for one that is no JSON object."""
    value = tokenizer.get("pre_tokenizer")
    if value is not None and not isinstance(value, Mapping):
        raise BadModelFile(path, "its pre_tokenizer is not a JSON object")
    try:
        splitter = Splitter(tokenizer.get("normalizer"), value)
        pieces = splitter.pieces(TEXT), splitter.pieces(_MORE)
    except NotUnderstood:
        raise _unknown(tokenizer, path) from None
    family = next((each for each in _FAMILIES if splitter.bytes and _pieces(each) == pieces), None)
    name = _hashed(tokenizer, splitter)
    if name is not None and (family is None or name in family.names):
        return name
    if family is None:
        raise _unknown(tokenizer, path)
    if family.names[0] == "qwen2" and _begins_deepseek(tokenizer):
        return "deepseek-r1-qwen"
    ignores = bool(tokenizer["model"].get("ignore_merges"))
    return family.whole if ignores and family.whole else family.names[0]


def check_name(pre: str) -> str:
    """Raise UsageError unless the engine knows a pre-tokenizer of this name."""
    if pre not in PRE_TOKENIZERS:
        raise UsageError(f"--pre {pre}: no such pre-tokenizer", hint=f"known: {', '.join(sorted(PRE_TOKENIZERS))}")
    return pre


@cache
def _pieces(family: Family) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """How a family cuts the two texts."""
    steps = [
        {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated"} for expression in family.expressions
    ]
    splitter = Splitter(None, {"type": "Sequence", "pretokenizers": steps})
    return splitter.pieces(TEXT), splitter.pieces(_MORE)


def _hashed(tokenizer: Mapping[str, Any], splitter: Splitter) -> str | None:
    """The name for the hash of the test text's tokens, including tokens that the post-processor adds."""
    try:
        before, after = around(tokenizer)
        numbers = [*before, *encode(tokenizer, splitter, TEXT), *after]
    except NotUnderstood:
        return None
    return HASHES.get(sha256(str(numbers).encode("utf-8", "replace")).hexdigest()[:32])


def has_bytes(pre_tokenizer: Any) -> bool:
    """Whether a pre-tokenizer turns text into bytes, as byte-level BPE needs it."""
    if not isinstance(pre_tokenizer, Mapping):
        return False
    steps = pre_tokenizer.get("pretokenizers")
    return pre_tokenizer.get("type") == "ByteLevel" or (isinstance(steps, list) and any(map(has_bytes, steps)))


def _begins_deepseek(tokenizer: Mapping[str, Any]) -> bool:
    """Whether DeepSeek's begin-of-text token is added to every text, as in R1-Distill-Qwen and not in Qwen."""
    return "begin▁of▁sentence" in str(tokenizer.get("post_processor"))


def _unknown(tokenizer: Mapping[str, Any], path: Path) -> Incompatible:
    steps = " + ".join(_shown(tokenizer.get("pre_tokenizer"))) or "none"
    before = " + ".join(_shown(tokenizer.get("normalizer")))
    seen = steps + (f", after {before}" if before else "")
    examples = ", ".join(each.whole or each.names[0] for each in _FAMILIES[:5])
    return Incompatible(
        f"{path}: its pre-tokenizer is not recognised: {seen[:400]}",
        hint=f"give its name with --pre NAME, for example {examples}",
    )


def _shown(value: Any, depth: int = 0) -> list[str]:
    """The steps of a normalizer or a pre-tokenizer, as far as they can be shown."""
    if not isinstance(value, Mapping) or depth > 3:
        return []
    inner = value.get("pretokenizers", value.get("normalizers"))
    if isinstance(inner, list):
        return [each for step in inner[:8] for each in _shown(step, depth + 1)]
    pattern = value.get("pattern")
    expression = pattern.get("Regex") if isinstance(pattern, Mapping) else None
    kind = spelled(value.get("type")).strip("'")[:60]
    if isinstance(expression, str):
        return [f"{kind}({spelled(expression[:60])[1:-1]}{'...' if len(expression) > 60 else ''})"]
    return [f"{kind}(use_regex)" if kind == "ByteLevel" and value.get("use_regex", True) else kind]
