"""Texts that end a process or mislead a model where a tokenizer is careless, the same for the same seed.

As a program it plays them to one vocabulary: hostile_texts.py FILE SEED COUNT LONGEST FIRST. It prints the number of
each text before it begins, and what is wrong with it, so that its parent knows which text ended it.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from runtime.gguf.header import ArrayValue  # noqa: E402
from runtime.gguf.reader import read_card  # noqa: E402
from tests.gguf_writer import V, header  # noqa: E402

# Characters of every class that pre-tokenizers know, and mixtures that are one word to some of them.
UNITS = (
    " ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "-", "=", "_", ".", "!?", "-=", "\"'", "/", "\n/", "x", "X", "xX",
    "ab", "a ", "word ", "x-", "'s", "a'", "7", "1,", "\u0663", "中", "中。", "あ", "한", "я", "ا", "कि", "e\u0301",
    "\u0301", "é", "🙂", "👩\u200d👧", "\u0378.", "\x00", "\x1c!", "\x7f", "\ufdd0", "\ue000", "a中-1 \n", "Ａ",
    "aGVsbG8gd29ybGQ", "<|im_end|>", "</s>", "<think>", "<dna>", "<｜User｜>", "\ufb01",
)  # fmt: skip


def hostile_text(rng: random.Random, longest: int) -> str:
    """One to four long runs of units between words; at most about `longest` characters."""
    runs = []
    for _ in range(rng.randint(1, 4)):
        unit = "".join(rng.choices(UNITS, k=rng.choice((1, 1, 1, 2, 3))))
        runs.append(
            unit * int(longest ** rng.uniform(0.3, 1) / 4 / len(unit)) + rng.choice(("", " ", "x", "7", "\n", ". "))
        )
    return rng.choice(("", "ab", " ", "中")) + "".join(runs) + rng.choice(("", "c d", " "))


def variant(source: Path, out: Path, **changes: Any) -> Path:
    """The vocabulary of `source` without its weights. `changes` are entries of tokenizer.ggml: pre="gpt-4o"."""
    metadata: dict[str, Any] = {}
    for key, value in read_card(source).metadata.items():
        if isinstance(value, ArrayValue):
            values = value.raw_strings() if value.type == "str" else list(value.numbers())
            metadata[key] = V(value.type, values, array=True)
        else:
            metadata[key] = value
    out.write_bytes(header(metadata | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}))
    return out


def sentencepiece(out: Path, *, bytes_too: bool = True) -> Path:
    """A small SPM vocabulary with a space before each text, control tokens and a user-defined tag."""
    tokens = ["<unk>", "<s>", "</s>", "<|im_end|>", "<think>"]
    kinds = [2, 3, 3, 3, 4]
    if bytes_too:
        tokens += [f"<0x{byte:02X}>" for byte in range(256)]
        kinds += [6] * 256
    words = ["▁", "a", "b", "c", "d", "x", "s", "<", "/", ">", "</", "s>", "▁a", "ab", "▁ab", "xx", "▁▁", "th", "in"]
    metadata = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens + words,
        "tokenizer.ggml.token_type": kinds + [1] * len(words),
        "tokenizer.ggml.scores": [0.0] * len(tokens) + [-float(number) for number in range(len(words))],
    }
    out.write_bytes(header(metadata))
    return out


def play(path: Path, seed: int, count: int, longest: int, stack: int = 1024) -> tuple[int, list[str]]:
    """Plays texts to a vocabulary in child processes with a stack of `stack` KiB.

    Returns how many were tokenized or refused, and what went wrong with the others.
    """
    failures, first = [], 0
    while first < count:
        command = f'ulimit -s {stack}; exec "$0" "$@"'
        words = [sys.executable, __file__, str(path), str(seed), str(count), str(longest), str(first)]
        child = subprocess.run(["bash", "-c", command, *words], cwd=ROOT, capture_output=True, text=True)
        lines = child.stdout.splitlines()
        failures += [line for line in lines if not line.isdigit()]
        reached = max((int(line) for line in lines if line.isdigit()), default=first)
        if child.returncode:
            failures.append(f"{reached}: ended with {child.returncode} {child.stderr.strip()[-200:]}")
        first = reached + 1 if child.returncode else count
    return count - len(failures), failures


def _child(file: str, *numbers: str) -> None:
    import ctypes
    import os

    from runtime.base.errors import DsrError
    from runtime.llama.native import native
    from runtime.llama.tokenizer import Tokenizer

    seed, count, longest, first = map(int, numbers)
    params = native.llama_model_default_params()
    params.vocab_only = True
    model = native.llama_model_load_from_file(os.fsencode(file), params)
    if not model:
        sys.exit("the engine cannot load it")
    vocab = native.llama_model_get_vocab(model)
    tokenizer, buffer = Tokenizer(vocab), ctypes.create_string_buffer(4096)
    rng = random.Random(seed)
    for number in range(count):
        text, literal = hostile_text(rng, longest), rng.random() < 0.5
        if number < first:
            continue
        print(number, flush=True)
        places = [at for at, letter in enumerate(text) if letter == "<"] if literal else ()
        try:
            tokens = tokenizer.tokenize(text, literal=places)
        except DsrError as error:
            if "\n" in error.message:
                print(f"{number}: refused in several lines", flush=True)
            continue
        spelled = bytearray()
        for token in tokens:
            spelled += buffer[: native.llama_token_to_piece(vocab, token, buffer, len(buffer), 0, True)]
        said = spelled.decode("utf-8", "replace")
        if native.llama_vocab_type(vocab) == 1:  # SPM puts a space before a text and after a special token
            said, text = said.replace(" ", ""), text.replace(" ", "")
        if said != text:
            print(f"{number}: the tokens spell another text", flush=True)


if __name__ == "__main__":
    _child(*sys.argv[1:])
