"""What a class does to its vocabulary beyond the common rules, by the name that config.json gives the class.

A fact list: each row repeats a `set_vocab` of llama.cpp's converter (conversion/*.py of llama.cpp as vendored in
llama-cpp-python 0.3.36; the comment names the file). A class without a row has no exceptions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from quant.sources.checkpoint import Checkpoint

# The name of a special token (bos, eos, eot, ...) and its number, or the text of an added token.
Special = tuple[tuple[str, int | str], ...]


@dataclass(frozen=True, slots=True)
class VocabularyRules:
    """Exceptions of one class.

    `special` are set where no file names such a token, `fixed` always; `decide` gives more of those. `space_prefix`
    says whether the engine puts a space before a text: "configured" takes add_prefix_space of tokenizer_config.json,
    as the first or the last key. `fallback_model` is the engine's tokenizer for a tokenizer.json with byte fallback.
    `control` and `visible` are tokens whose type is set by name. `strict_added`: an added token is a control token
    only where a file says so. `always_bos`: the engine adds the begin token. `jinja_first`: chat_template.jinja wins
    over tokenizer_config.json.
    """

    special: Special = ()
    fixed: Special = ()
    decide: Callable[[Checkpoint], Special] | None = None
    space_prefix: Literal["", "configured first", "configured last", "never"] = ""
    fallback_model: Literal["llama", "gemma4"] = "llama"
    control: frozenset[str] = frozenset()
    visible: frozenset[str] = frozenset()
    strict_added: bool = False
    always_bos: bool = False
    jinja_first: bool = False
    code_llama: bool = False


def rules_of(config: Mapping[str, Any]) -> VocabularyRules:
    """The exceptions of the class that a config.json names first."""
    names = config.get("architectures")
    first = names[0] if isinstance(names, list) and names else ""
    return _RULES.get(first, _NONE) if isinstance(first, str) else _NONE


def _eos_list(checkpoint: Checkpoint) -> list[int]:
    """The end tokens in config.json that are not the begin token, where it has a list of them."""
    found = checkpoint.config.get("eos_token_id")
    numbers = found if isinstance(found, list) else []
    return [each for each in numbers if type(each) is int and each != checkpoint.config.get("bos_token_id")]


def _laguna(checkpoint: Checkpoint) -> Special:
    numbers = _eos_list(checkpoint)
    return (("eot", numbers[0]),) if numbers else ()


def _hunyuan_dense(checkpoint: Checkpoint) -> Special:
    """The end of a document and of a turn, which config.json has under other names."""
    found: list[tuple[str, int | str]] = []
    if not (checkpoint.folder / "tokenizer.json").is_file() and checkpoint.config.get("hidden_size") == 4096:
        found.append(("bos", 127958))  # HunYuanModel: the 7B names a wrong one
    text = checkpoint.config.get("text_config")
    text = text if isinstance(text, Mapping) else {}
    end = text.get("eod_token_id", checkpoint.config.get("eod_token_id"))
    if type(end) is int:
        found.append(("eos", end))
    ends = checkpoint.generation.get("eos_token_id")
    if isinstance(ends, list) and len(ends) >= 2 and type(ends[0]) is int:
        found.append(("eot", ends[0]))
    return tuple(found)


def _kimi_linear(checkpoint: Checkpoint) -> Special:
    """The tokenizer's end token, also where config.json names another one."""
    if not (checkpoint.folder / "tiktoken.model").is_file() or (checkpoint.folder / "tokenizer.json").is_file():
        return ()
    value = (checkpoint.json("tokenizer_config.json") or {}).get("eos_token", "[EOS]")
    value = value.get("content") if isinstance(value, Mapping) else value
    return (("eos", value),) if isinstance(value, str) else ()


_NONE = VocabularyRules()
_LLAMA = VocabularyRules(space_prefix="configured first", code_llama=True)  # llama.py
_GEMMA = VocabularyRules(space_prefix="never")  # gemma.py
_GEMMA_4 = VocabularyRules(
    fallback_model="gemma4",
    space_prefix="never",
    always_bos=True,
    # Printed, so that thoughts and tool calls can be told apart.
    visible=frozenset(
        ("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>')
    ),
)
_PHI = VocabularyRules(strict_added=True)  # phi.py
_ERNIE = VocabularyRules(space_prefix="configured last")  # ernie.py
_GLM = VocabularyRules(  # base.py, _set_vocab_glm
    special=(("bos", "[gMASK]"), ("eot", "<|user|>"), ("unk", "<|endoftext|>"), ("eom", "<|observation|>"))
)
_GLM_4 = VocabularyRules(  # glm.py, Glm4Model
    special=(("eos", "<|endoftext|>"), ("eot", "<|user|>"), ("unk", "<|endoftext|>"), ("bos", "<|endoftext|>"))
)
_GLM_OLD = VocabularyRules(  # chatglm.py
    special=(("eos", "<|endoftext|>"), ("eot", "<|user|>"), ("unk", "<|endoftext|>"))
)
_SOLAR = VocabularyRules(  # glm.py, SolarOpenModel
    special=(("eos", "<|endoftext|>"), ("eot", "<|endoftext|>"), ("unk", "<unk>"), ("bos", "<|startoftext|>"))
)
_RWKV = VocabularyRules(special=(("eot", 261),), fixed=(("bos", 0), ("eos", 0)))  # base.py, _set_vocab_rwkv_world

_LLAMA_LIKE = (
    "LLaMAForCausalLM", "LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "VLlama3ForCausalLM",
    "LlamaModel", "LlavaForConditionalGeneration", "VoxtralForConditionalGeneration", "IQuestCoderForCausalLM",
    "ArceeForCausalLM", "SmolLM3ForCausalLM", "ApertusForCausalLM", "AfmoeForCausalLM", "GraniteForCausalLM",
    "GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM", "Mistral3ForConditionalGeneration",
    "Ministral3ForCausalLM",
)  # fmt: skip

_RULES: dict[str, VocabularyRules] = {
    **dict.fromkeys(_LLAMA_LIKE, _LLAMA),
    "GemmaForCausalLM": VocabularyRules(space_prefix="never", special=(("eot", 107),)),
    **dict.fromkeys(
        (
            "Gemma2ForCausalLM", "Gemma3ForCausalLM", "Gemma3ForConditionalGeneration", "Gemma3nForCausalLM",
            "Gemma3nForConditionalGeneration",
        ),
        _GEMMA,
    ),
    **dict.fromkeys(
        ("Gemma4ForConditionalGeneration", "Gemma4ForCausalLM", "Gemma4UnifiedForConditionalGeneration"), _GEMMA_4
    ),
    **dict.fromkeys(("Phi3ForCausalLM", "PhiMoEForCausalLM"), _PHI),
    **dict.fromkeys(("Ernie4_5_ForCausalLM", "Ernie4_5ForCausalLM", "Ernie4_5_MoeForCausalLM"), _ERNIE),
    **dict.fromkeys(
        (
            "Glm4MoeForCausalLM", "Glm4vMoeForConditionalGeneration", "Glm4MoeLiteForCausalLM", "GlmMoeDsaForCausalLM",
            "Glm5NextForConditionalGeneration",
        ),
        _GLM,
    ),
    **dict.fromkeys(("Glm4ForCausalLM", "Glm4vForConditionalGeneration"), _GLM_4),
    "GlmForCausalLM": _GLM_OLD,
    "SolarOpenForCausalLM": _SOLAR,
    "NemotronForCausalLM": VocabularyRules(fixed=(("pad", 0), ("unk", 1))),  # nemotron.py
    "LagunaForCausalLM": VocabularyRules(  # laguna.py
        control=frozenset(("</assistant>",)), jinja_first=True, decide=_laguna
    ),
    **dict.fromkeys(  # minimax.py
        ("MiniMaxText01ForCausalLM", "MiniMaxM1ForCausalLM"), VocabularyRules(jinja_first=True)
    ),
    "HunYuanMoEV1ForCausalLM": VocabularyRules(fixed=(("bos", 127959),)),  # hunyuan.py
    "HunYuanDenseV1ForCausalLM": VocabularyRules(decide=_hunyuan_dense),
    "KimiLinearForCausalLM": VocabularyRules(decide=_kimi_linear),  # kimi_linear.py
    "KimiLinearModel": VocabularyRules(decide=_kimi_linear),
    **dict.fromkeys(  # dots3.py
        ("Dots3NoteForCausalLM", "Dots3NoteForConditionalGeneration", "Dots3NoteTextForCausalLM"),
        VocabularyRules(special=(("eot", "<|endofassistant|>"),)),
    ),
    **dict.fromkeys(("Rwkv6ForCausalLM", "Rwkv7ForCausalLM", "RWKV7ForCausalLM"), _RWKV),
}  # fmt: skip
