"""Does our vocabulary equal that of llama.cpp's own converter, form by form? Compared by key, in order.

    python tests/peers/tokenizers.py LLAMA_CPP PYTHON            the tiny tokenizers of tests/quant/tokenizers.py
    python tests/peers/tokenizers.py LLAMA_CPP PYTHON --write    the same, and keep what llama.cpp made as digests

LLAMA_CPP and PYTHON as in convert.py; PYTHON needs mistral_common too. The converter's own set_vocab runs. What it
takes from code of a repository (Kimi, Hunyuan) is given to it, and the name of the pre-tokenizer, which it finds by a
hash that tiny vocabularies do not have. mistral_common of today asks tekken.json for a version.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from quant.convert import tokenizer
from quant.sources.checkpoint import open_checkpoint
from tests.quant import tokenizers
from tests.quant.digests import digest

REFERENCE = Path(tokenizers.__file__).with_name("tokenizer_reference.json")

# Where ours is meant to be another: a number beyond this tiny vocabulary, which only the real one has; scores that the
# converter writes as integers, and a template of llama.cpp's own, for Mistral's models.
MEANT = {
    "hunyuan": ("tokenizer.ggml.bos_token_id",),
    "tekken": ("tokenizer.ggml.scores", "tokenizer.chat_template"),
}

_RUN = r"""
import base64, hashlib, json, sys
from pathlib import Path
root, folder, pre = sys.argv[1:4]
sys.path[:0] = [root + "/gguf-py", root]
import gguf, transformers
import conversion
from conversion import base
folder = Path(folder)
config = json.loads((folder / "config.json").read_text())
settings = {}
if (folder / "tokenizer_config.json").is_file():
    settings = json.loads((folder / "tokenizer_config.json").read_text())

class Tiktoken:
    def __init__(self, ranks, special):
        self.model, self.mergeable_ranks, self.special_tokens = self, ranks, special
        self._mergeable_ranks, self.vocab_size = ranks, config["vocab_size"]
        self.eos_id = special.get(settings.get("eos_token"))

def tiktoken():
    ranks, in_order = {}, (folder / "hy.tiktoken").is_file()
    file = folder / ("hy.tiktoken" if in_order else "tiktoken.model")
    for line in file.read_bytes().splitlines():
        token, rank = line.split()
        token = base64.b64decode(token)
        if token not in ranks:
            ranks[token] = len(ranks) if in_order else int(rank)
    first = len(ranks)
    if in_order:
        names = ["<|endoftext|>", "<|startoftext|>", "<|bos|>", "<|eos|>", "<|pad|>"]
        names += ["<|extra_%d|>" % i for i in range(205)]
        return Tiktoken(ranks, {name: first + i for i, name in enumerate(names)})
    names = {int(k): v["content"] for k, v in settings["added_tokens_decoder"].items()}
    return Tiktoken(ranks, {names.get(i, "<|reserved_token_%d|>" % i): i for i in range(first, first + 258)})

original = transformers.AutoTokenizer.from_pretrained
def from_pretrained(path, **options):
    if (folder / "tokenizer.json").is_file():
        return original(path)
    if not options.get("trust_remote_code"):
        raise ValueError("no tokenizer")
    return tiktoken()
transformers.AutoTokenizer.from_pretrained = from_pretrained
base.TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
cls = conversion.get_model_class(config["architectures"][0]) if hasattr(conversion, "get_model_class") else None
if cls is None:
    cls = base.ModelBase.from_model_architecture(config["architectures"][0])
model = cls.__new__(cls)
model.dir_model, model.hparams, model.is_mistral_format = folder, config, False
model.disable_mistral_community_chat_template, model.origin_hf_arch = False, None
model.gguf_writer = gguf.GGUFWriter(None, "llama")
model.set_vocab()
out = {}
for data in model.gguf_writer.kv_data:
    for key, value in data.items():
        if key.startswith("tokenizer."):
            raw = model.gguf_writer._pack_val(value.value, value.type, add_vtype=True, sub_type=value.sub_type)
            out[key] = hashlib.sha256(raw).hexdigest()[:20]
print("RESULT" + json.dumps(out))
"""


def ours(folder: Path) -> tuple[dict[str, str], str]:
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    found = tokenizer.read(open_checkpoint(folder), size, pre=None)
    pre = next((entry.encoded[12:].decode() for entry in found if entry.key == "tokenizer.ggml.pre"), "")
    return {entry.key: digest(entry.encoded) for entry in found}, pre


def main() -> None:
    arguments = [argument for argument in sys.argv[1:] if argument != "--write"]
    if len(arguments) != 2:
        sys.exit(__doc__)
    llama_cpp, python = arguments
    kept, wrong = {}, 0
    for name, make in tokenizers.FORMS.items():
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / name
            make(folder)
            mine, pre = ours(folder)
            command = [python, "-c", _RUN, llama_cpp, str(folder), pre]
            done = subprocess.run(command, capture_output=True, text=True)
        result = next((line[6:] for line in done.stdout.splitlines() if line.startswith("RESULT")), None)
        if result is None:
            sys.exit(f"llama.cpp's converter failed on {name}:\n{done.stderr[-3000:]}")
        theirs = json.loads(result)
        differ = [key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)]
        differ = [key for key in differ if key not in MEANT.get(name, ())]
        order = "equal" if list(mine) == [key for key in theirs if key in mine] else f"NOT: {list(mine)} {list(theirs)}"
        print(f"{name}: {len(theirs) - len(differ)} of {len(theirs)} keys equal, order {order}", *sorted(differ))
        wrong += bool(differ)
        kept[name] = theirs
    if "--write" in sys.argv:
        REFERENCE.write_text(json.dumps(kept, indent=1) + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
