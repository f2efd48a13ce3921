"""Are the names of pre-tokenizers those of llama.cpp's hashes, and are texts cut as the tokenizers package cuts them?

    python tests/peers/pretokenizers.py LLAMA_CPP PYTHON

First the vocabularies in LLAMA_CPP/models (ggml-vocab-*.gguf), put back into a tokenizer.json with the steps that the
models publish: the name must follow from the hash of llama.cpp's test text. Then each family of
quant/convert/pretokenizer.py: the pieces of both texts against those of the tokenizers package in PYTHON.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gguf import GGUFReader

from quant.convert import pretokenizer
from quant.convert.pretokenizer_hashes import HASHES, TEXT
from quant.convert.splitting import Splitter, encode
from tests.quant import tiny

_RUN = r"""
import json, sys
from tokenizers import Regex, pre_tokenizers
families, texts = json.load(sys.stdin)
out = []
for expressions in families:
    steps = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(each), "isolated") for each in expressions])
    out.append([[piece for piece, _ in steps.pre_tokenize_str(text)] for text in texts])
print(json.dumps(out))
"""


def chains(llama_cpp: Path) -> dict[str, list[dict[str, Any]]]:
    source = (llama_cpp / "src" / "llama-vocab.cpp").read_text()
    letters = re.search(r'"(\\\\s\?\[A-Za-z[^"]+)"', source)
    assert letters is not None
    split, digits = tiny.split, tiny.DIGITS
    deepseek = ["\\s?[!-/:-~！-／：-～‘-‟　-。]+", "\\s+$", "[一-龥ࠀ-一가-퟿]+"]
    return {
        "llama-bpe": [split(tiny.LLAMA_3), tiny.byte_level()],
        "qwen2": [split(tiny.QWEN_2), tiny.byte_level()],
        "gpt-2": [tiny.byte_level(True)],
        "mpt": [tiny.byte_level(True)],
        "starcoder": [digits, tiny.byte_level(True)],
        "refact": [digits, tiny.byte_level(True)],
        "command-r": [digits, tiny.byte_level(True)],
        "deepseek-coder": [*map(split, tiny.DEEPSEEK_CODER), digits, tiny.byte_level()],
        "deepseek-llm": [
            *map(split, ["[\r\n]", letters[1].replace("\\\\", "\\"), *deepseek]), digits, tiny.byte_level()
        ],
        "falcon": [
            {"type": "Punctuation", "behavior": "Contiguous"},
            tiny.byte_level(True),
            {"type": "Digits", "individual_digits": False},
            split("[0-9][0-9][0-9]"),
        ],
    }  # fmt: skip


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    llama_cpp, wrong = Path(sys.argv[1]), 0
    for name, steps in chains(llama_cpp).items():
        fields = GGUFReader(llama_cpp / "models" / f"ggml-vocab-{name}.gguf").fields
        tokens, types = (fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "token_type"))
        begin = fields["tokenizer.ggml.bos_token_id"].contents()
        pairs = list(enumerate(zip(tokens, types, strict=True)))
        described = {
            "added_tokens": [{"content": text, "id": number} for number, (text, kind) in pairs if kind in (3, 4)],
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
            "model": {
                "vocab": {text: number for number, (text, kind) in pairs if kind == 1},
                "merges": fields["tokenizer.ggml.merges"].contents(),
                "ignore_merges": name == "llama-bpe",
            },
        }
        numbers = encode(described, Splitter(None, described["pre_tokenizer"]), TEXT)
        keys = (sha256(str(each).encode()).hexdigest()[:32] for each in (numbers, [begin, *numbers]))
        found = [HASHES.get(key) for key in keys]
        right = name in found or (name == "mpt" and "olmo" in found)  # both have one hash, and the last counts
        print(f"{name}: {'equal' if right else 'NOT equal'} ({', '.join(filter(None, found))})")
        wrong += not right
    families, texts = pretokenizer._FAMILIES, (TEXT, pretokenizer._MORE)
    given = json.dumps([[family.expressions for family in families], texts])
    done = subprocess.run([sys.argv[2], "-c", _RUN], input=given, capture_output=True, text=True, check=True)
    for family, theirs in zip(families, json.loads(done.stdout), strict=True):
        same = [list(each) for each in pretokenizer._pieces(family)] == theirs
        print(f"{family.names[0]}: pieces {'equal' if same else 'NOT equal'}")
        wrong += not same
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
