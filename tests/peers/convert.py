"""Does our conversion equal that of llama.cpp's own converter? Compared by tensor (name, type, shape, bytes) and key.

    python tests/peers/convert.py LLAMA_CPP PYTHON                    the tiny checkpoints of tests/quant/tiny.py, and
                                                                      one of each class (tests/quant/tiny_models.py)
    python tests/peers/convert.py LLAMA_CPP PYTHON --only NAME...     those of these classes
    python tests/peers/convert.py LLAMA_CPP PYTHON --write            the same, and keep what llama.cpp made as digests
    python tests/peers/convert.py LLAMA_CPP PYTHON FOLDER...          any checkpoints, as F16 and BF16
    python tests/peers/convert.py - - FOLDER=FILE.gguf...             against files that the converter made earlier

LLAMA_CPP is the source tree of the engine's release, PYTHON an interpreter with torch, transformers 4.57 (which the
converter pins), sentencepiece and protobuf; neither is needed by dsr or by its tests.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from quant.convert.conversion import source_of
from quant.sources.checkpoint import open_checkpoint
from runtime.base.errors import DsrError
from tests.peers.warm import warm
from tests.quant import digests, tiny, tiny_models

REFERENCE = Path(tiny.__file__).with_name("convert_reference.json")
CLASSES = REFERENCE.with_name("reference")  # a file for each class


class Failed(Exception):
    """llama.cpp's converter refused a checkpoint."""


# The converter knows pre-tokenizers by a hash that depends on the vocabulary, so it cannot know those of tiny models:
# where it gives up it is told what we recognised. It leaves the MTP layers of DeepSeek-V3 out, and keeps those of V3.2,
# which is converted by a class derived from V3's; to keep V3's it is given what that class adds.
# The tokenizers that some classes insist on are other tests' matter (tests/peers/tokenizers.py): theirs is byte-level.
# MiMo 7B, whose class it does not know, has the tensors of Qwen 2.
# Other classes keep or leave out these layers by the option --no-mtp, which only they accept.
_RUN = """
import runpy, sys
root, pre, keep_mtp = sys.argv[1:4]
sys.path[:0] = [root + "/gguf-py", root]
from conversion import TEXT_MODEL_MAP, base, get_model_class
TEXT_MODEL_MAP["MiMoForCausalLM"] = "qwen"
base.ModelBase.register("MiMoForCausalLM")(get_model_class("Qwen2ForCausalLM"))
base.ModelBase.no_mtp = keep_mtp != "True"
for made in [c for c in vars(base).values() if isinstance(c, type) and "get_vocab_base_pre" in vars(c)]:
    def answer(self, tokenizer, original=made.get_vocab_base_pre):
        try:
            return original(self, tokenizer)
        except NotImplementedError:
            return pre
    made.get_vocab_base_pre = answer
if keep_mtp == "True":
    import gguf
    from conversion.deepseek import DeepseekV2Model as model
    begin, describe = model.__init__, model.set_gguf_parameters
    def begin_with(self, *arguments, **options):
        begin(self, *arguments, **options)
        if type(self) is not model:
            return
        self.block_count += self.hparams["num_nextn_predict_layers"]
        self.tensor_map = gguf.get_tensor_name_map(gguf.MODEL_ARCH.DEEPSEEK32, self.block_count)
    def describe_with(self):
        describe(self)
        if type(self) is model:
            self.gguf_writer.add_nextn_predict_layers(self.hparams["num_nextn_predict_layers"])
    model.skip_mtp, model.__init__, model.set_gguf_parameters = False, begin_with, describe_with
for name in ("DeciLMForCausalLM", "DeepseekV32ForCausalLM", "Ernie4_5ForCausalLM", "HunYuanMoEV1ForCausalLM"):
    get_model_class(name).set_vocab = base.TextModel.set_vocab
sys.argv = [root + "/convert_hf_to_gguf.py", *sys.argv[4:]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def reference(
    llama_cpp: str, python: str, folder: Path, kind: str, pre: str, *, keep_mtp: bool = False
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "reference.gguf"
        options = ("--outfile", str(out), "--outtype", kind)
        status, said = warm(python, _RUN, "torch", "transformers").run(
            llama_cpp, pre, str(keep_mtp), str(folder), *options
        )
        if status:
            raise Failed(f"llama.cpp's converter failed on {folder}:\n{said[-3000:]}")
        return digests.of_gguf(str(out))


def ours(folder: Path, kind: str, *, keep_mtp: bool = False) -> tuple[dict[str, Any], str]:
    """Our digests, and the pre-tokenizer that was recognised."""
    source = source_of(open_checkpoint(folder), keep_mtp=keep_mtp)
    pre = next((entry.encoded[12:].decode() for entry in source.metadata if entry.key == "tokenizer.ggml.pre"), "")
    return digests.of_source(source, kind), pre  # type: ignore[arg-type]


def by_name(digests_of: list[list[Any]]) -> dict[str, list[Any]]:
    return {each[0]: each for each in digests_of}


def different(mine: list[list[Any]], theirs: list[list[Any]]) -> list[str]:
    """The names of tensors or keys that are not the same in both."""
    first, second = by_name(mine), by_name(theirs)
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def compare(name: str, mine: dict[str, Any], theirs: dict[str, Any]) -> int:
    wrong = 0
    for what in ("tensors", "metadata"):
        first, second = by_name(mine[what]), by_name(theirs[what])
        differ = different(mine[what], theirs[what])
        for key in differ:
            print(f"  {name}: {key}: dsr {first.get(key)}, llama.cpp {second.get(key)}")
        ordered = [each[0] for each in mine[what]] == [each[0] for each in theirs[what]]
        order = "equal" if ordered else "NOT, which changes nothing" if what == "metadata" else "NOT"
        print(f"{name}: {len(second) - len(differ)} of {len(second)} {what} equal, order {order}")
        wrong += len(differ) + (what == "tensors" and not ordered)
    return wrong


def tiny_cases(only: list[str]) -> Iterator[tuple[str, Callable[[Path], None], str, bool]]:
    """Of each case its name, how it is made, its type, and whether MTP is kept."""
    if not only:
        yield from ((name, make, kind, name in tiny.KEEPING) for name, (make, kind) in tiny.CASES.items())
    for name in only or tiny_models.MODELS:
        yield name, partial(tiny_models.make_tiny, name), "bf16", name in tiny_models.KEEPING


def compare_tiny(llama_cpp: str, python: str, only: list[str], *, write: bool) -> int:
    kept, wrong = json.loads(REFERENCE.read_text()), 0
    for name, make, kind, keep_mtp in tiny_cases(only):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / name
            make(folder)
            try:
                mine, pre = ours(folder, kind, keep_mtp=keep_mtp)
                theirs = reference(llama_cpp, python, folder, kind, pre, keep_mtp=keep_mtp)
            except (DsrError, Failed) as error:
                print(f"{name}: {error}")
                wrong += 1
                continue
            wrong += compare(name, mine, theirs)
            if name in tiny.CASES:
                kept[name] = theirs
            elif write:
                write_class(name, theirs)
    if write and not only:
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in kept.items()]
        REFERENCE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return wrong


def write_class(name: str, found: dict[str, Any]) -> None:
    """Keep the digests of one class, a line for each tensor and key."""
    parts = (f'"{part}": [\n' + ",\n".join(map(json.dumps, each)) + "\n]" for part, each in found.items())
    (CLASSES / f"{name}.json").write_text("{\n" + ",\n".join(parts) + "\n}\n")


def main() -> None:
    arguments = [argument for argument in sys.argv[1:] if argument not in ("--write", "--only")]
    if len(arguments) < 2:
        sys.exit(__doc__)
    llama_cpp, python, *folders = arguments
    if not folders or "--only" in sys.argv:
        sys.exit(compare_tiny(llama_cpp, python, folders, write="--write" in sys.argv) > 0)
    wrong = 0
    for given in folders:
        folder, _, file = given.partition("=")
        for kind in ("f16", "bf16"):
            if file and kind not in Path(file).stem.split("-"):
                continue
            mine, pre = ours(Path(folder), kind)
            theirs = digests.of_gguf(file) if file else reference(llama_cpp, python, Path(folder), kind, pre)
            wrong += compare(f"{folder} {kind}", mine, theirs)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
