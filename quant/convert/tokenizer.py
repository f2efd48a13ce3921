"""A checkpoint's tokenizer as metadata of a GGUF: vocabulary, types of tokens, merges, special tokens, chat template.

Keys and rules are those of llama.cpp's converter and gguf's SpecialVocab (conversion/base.py, gguf-py/gguf/vocab.py of
llama.cpp as vendored in llama-cpp-python 0.3.36).
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gguf import Keys, TokenType

from quant.convert import pretokenizer, ranks
from quant.convert.byte_fallback import byte_fallback
from quant.convert.byte_level import byte_level
from quant.convert.pieces import pieces_vocabulary
from quant.convert.rwkv_world import TEMPLATE, rwkv_world
from quant.convert.special_tokens import SpecialTokens, chat_template, special_tokens
from quant.convert.tokenizer_files import CONFIG, TokenizerFiles, find_tokenizer
from quant.convert.vocabulary import Vocabulary
from quant.convert.vocabulary_rules import Special, VocabularyRules, rules_of
from quant.gguf import writer
from quant.gguf.writer import KeyValue
from quant.sources.checkpoint import Checkpoint

_CODE_LLAMA = 32016  # the sizes of two vocabularies with rules of their own (LlamaModel in conversion/llama.py)
_SMOLLM = 49152


def read(checkpoint: Checkpoint, size: int, *, pre: str | None) -> tuple[KeyValue, ...]:
    """Metadata for a vocabulary of `size` tokens. `pre` overrides what would be recognised.

    The class in config.json decides the exceptions.

    Raises NotFound (no tokenizer), BadModelFile (a damaged one, or one larger than the model's vocabulary),
    Incompatible (a kind of tokenizer, or a way to cut words, that is not recognised), UsageError (an unknown `pre`).
    """
    if pre is not None:
        pretokenizer.check_name(pre)
    config, rules = checkpoint.json(CONFIG) or {}, rules_of(checkpoint.config)
    files = find_tokenizer(checkpoint, pre)
    if files.form == "tekken":
        return (*ranks.tekken(files.described, size, files.path), *_templates(chat_template(checkpoint, config)))
    vocabulary = _typed(_vocabulary(checkpoint, files, config, rules, size), rules)
    found = special_tokens(checkpoint, files.described, size)
    for name, at in _numbered(rules.special, vocabulary, size):
        found.ids.setdefault(name, at)
    if rules.jinja_first:
        found.chat_template = checkpoint.text("chat_template.jinja") or found.chat_template
    if files.form == "rwkv":
        found.chat_template = found.chat_template or TEMPLATE
    entries = [*vocabulary.entries(), *_special(found)]
    fixed = (*rules.fixed, *(rules.decide(checkpoint) if rules.decide else ()))
    for name, at in _numbered(fixed, vocabulary, size):
        _replace(entries, writer.u32(getattr(Keys.Tokenizer, f"{name.upper()}_ID"), at))
    if rules.code_llama and size == _CODE_LLAMA:
        entries += _code_llama()
    if rules.code_llama and size == _SMOLLM:
        _replace(entries, writer.boolean(Keys.Tokenizer.ADD_BOS, False))
    prefix = _space_prefix(rules, config, vocabulary)
    if prefix is not None:
        entries.insert(0 if rules.space_prefix == "configured first" else len(entries), prefix)
    if rules.always_bos:
        _replace(entries, writer.boolean(Keys.Tokenizer.ADD_BOS, True))
    return tuple(entries)


def _vocabulary(
    checkpoint: Checkpoint, files: TokenizerFiles, config: Mapping[str, Any], rules: VocabularyRules, size: int
) -> Vocabulary:
    if files.form == "pieces":
        return pieces_vocabulary(checkpoint, files, config, size, strict=rules.strict_added)
    if files.form == "byte fallback":
        return byte_fallback(files.described, config, rules, size, files.path)
    if files.form == "kimi":
        return ranks.kimi(files.ranks, config, files.pre, size, files.path)
    if files.form == "hunyuan":
        return ranks.hunyuan(files.ranks, files.pre, size, files.path)
    if files.form == "rwkv":
        return rwkv_world(files.text, size, files.path)
    return byte_level(files.described, config, files.pre, size, files.path)


def _typed(vocabulary: Vocabulary, rules: VocabularyRules) -> Vocabulary:
    """The vocabulary with the types that the rules set by name."""
    kinds = dict.fromkeys((text.encode() for text in rules.control), TokenType.CONTROL)
    kinds |= dict.fromkeys((text.encode() for text in rules.visible), TokenType.USER_DEFINED)
    if not kinds:
        return vocabulary
    pairs = zip(vocabulary.tokens, vocabulary.types, strict=True)
    return replace(vocabulary, types=[int(kinds.get(token, kind)) for token, kind in pairs])


def _numbered(special: Special, vocabulary: Vocabulary, size: int) -> list[tuple[str, int]]:
    """Special tokens with their numbers, as far as the vocabulary has them."""
    numbers = ((name, vocabulary.added.get(at) if isinstance(at, str) else at) for name, at in special)
    return [(name, at) for name, at in numbers if at is not None and 0 <= at < size]


def _space_prefix(rules: VocabularyRules, config: Mapping[str, Any], vocabulary: Vocabulary) -> KeyValue | None:
    """Whether the engine puts a space before a text, if that is to be written."""
    wanted: bool | None = None
    if rules.space_prefix.startswith("configured") and isinstance(config.get("add_prefix_space"), bool):
        wanted = config["add_prefix_space"]
    elif rules.space_prefix == "never":
        wanted = None if vocabulary.model == "gpt2" else False
    elif vocabulary.space_prefix is False and vocabulary.model == "llama":  # the engine's own default is a space
        wanted = False
    return None if wanted is None else writer.boolean(Keys.Tokenizer.ADD_PREFIX, wanted)


def _code_llama() -> list[KeyValue]:
    keys = Keys.Tokenizer
    numbers = ((keys.PREFIX_ID, 32007), (keys.SUFFIX_ID, 32008), (keys.MIDDLE_ID, 32009), (keys.EOT_ID, 32010))
    return [writer.u32(key, token) for key, token in numbers]


def _replace(entries: list[KeyValue], entry: KeyValue) -> None:
    """Put an entry in the place of the one with its key, or at the end."""
    for at, each in enumerate(entries):
        if each.key == entry.key:
            entries[at] = entry
            return
    entries.append(entry)


_WITH_ID = ("bos", "eos", "unk", "sep", "pad", "mask", "eot", "eom")
_WITH_FLAG = ("bos", "eos", "sep")


def _special(found: SpecialTokens) -> list[KeyValue]:
    entries = [
        writer.u32(getattr(Keys.Tokenizer, f"{name.upper()}_ID"), number)
        for name, number in found.ids.items()
        if name in _WITH_ID
    ]
    entries += [
        writer.boolean(getattr(Keys.Tokenizer, f"ADD_{name.upper()}"), value)
        for name, value in found.add.items()
        if name in _WITH_FLAG
    ]
    return entries + _templates(found.chat_template)


def _templates(template: Any) -> list[KeyValue]:
    """One template, or several with names, as a list or an object, of which "default" is the one."""
    if isinstance(template, str):
        return [writer.text(Keys.Tokenizer.CHAT_TEMPLATE, template)]
    if isinstance(template, Mapping):
        template = [{"name": name, "template": text} for name, text in template.items()]
    entries: list[KeyValue] = []
    names: list[str] = []
    default: str | None = None
    for each in template if isinstance(template, list) else ():
        name, text = (each.get("name"), each.get("template")) if isinstance(each, Mapping) else (None, None)
        if not isinstance(name, str) or not isinstance(text, str) or not name:
            continue
        allowed = string.ascii_letters + string.digits
        name = "".join(character if character in allowed else "_" for character in name)
        if name == "default":
            default = text
        else:
            entries.append(writer.text(Keys.Tokenizer.CHAT_TEMPLATE_N.format(name=name), text))
            names.append(name)
    if names:
        entries.append(writer.texts(Keys.Tokenizer.CHAT_TEMPLATES, [name.encode() for name in names]))
    if default is not None:
        entries.append(writer.text(Keys.Tokenizer.CHAT_TEMPLATE, default))
    return entries
