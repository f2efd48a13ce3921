"""Words that users of other programs type, and older spellings of options: what each is here. Pure, and quick to load.

Sources: the commands of `ollama --help`, `llm --help` and `hf --help`, llama.cpp's common/arg.cpp and
tools/quantize/quantize.cpp.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from runtime.base.errors import UsageError

SERVER = "http://127.0.0.1:11500"  # the default of dsr serve


@dataclass(frozen=True, slots=True)
class Word:
    """A first word that is no command of dsr: the command in its place (`now`), or a sentence about it (`says`)."""

    of: str
    now: tuple[str, ...] = ()
    says: str = ""


WORDS = {
    "run": Word("Ollama", ("chat",)),
    "ls": Word("Ollama, hf", ("list",)),
    "models": Word("llm", ("list",)),
    "download": Word("hf, llama.cpp", ("pull",)),
    "get": Word("LM Studio", ("pull",)),
    "info": Word("hf", ("show",)),
    "remove": Word("llm", ("rm",)),
    "delete": Word("hf", ("rm",)),
    "prompt": Word("llm", ("chat",)),
    "cli": Word("llama.cpp", ("chat",)),
    "logs": Word("llm", ("history",)),
    "aliases": Word("llm", ("alias",)),
    "settings": Word("other programs", ("config",)),
    "server": Word("llama.cpp", ("serve",)),
    "convert": Word("llama.cpp", ("quantize",)),
    "perplexity": Word("llama.cpp", ("bench", "quality")),
    "llama-bench": Word("llama.cpp", ("bench", "speed")),
    "version": Word("hf", ("--version",)),
    "ps": Word("Ollama", says=f"only dsr serve keeps models loaded; to list them: curl {SERVER}/api/ps"),
    "stop": Word("Ollama", says="dsr chat unloads its model when it ends; Ctrl-C ends dsr serve and all its models"),
    "create": Word("Ollama", says="no Modelfile is needed: dsr quantize makes files, dsr chat has --system and --temp"),
    "cp": Word("Ollama", says="a second name needs no copy: dsr alias NAME MODEL"),
    "push": Word("Ollama", says="dsr uploads nothing; to upload a file to the hub: hf upload"),
    "search": Word("hf", says="to see the models dsr knows: dsr list --catalog; any other: dsr pull org/repo"),
    "login": Word("hf", says="dsr uses the token of hf auth login, or the variable HF_TOKEN"),
    "auth": Word("hf", says="dsr uses the token of hf auth login, or the variable HF_TOKEN"),
    "signin": Word("Ollama", says="dsr needs no account; for gated models it uses HF_TOKEN"),
    "upgrade": Word("llm", says="dsr does not update itself: run git pull, then make demo, in its folder"),
    "update": Word("hf", says="dsr does not update itself: run git pull, then make demo, in its folder"),
    "embed": Word("llm", says=f"run dsr serve MODEL, then send the texts to {SERVER}/v1/embeddings"),
    "cache": Word("hf", says="to list the models in the cache: dsr list; to delete one: dsr rm MODEL"),
    "keys": Word("llm", says="dsr runs models on this machine and needs no keys"),
    "templates": Word("llm", says='dsr chat --system "..." sets the system prompt, --template FILE the chat template'),
}  # fmt: skip

# Older spellings of options, by command. They keep working, and help does not show them.
RENAMED: dict[tuple[str, ...], dict[str, str]] = {
    ("plan",): {"--votes": "--vote"},
    ("imatrix",): {"--output": "--out"},
    ("bench", "speed"): {"--votes": "--vote"},
    ("bench", "all"): {"--keep": "--out"},
}
# The same for an option that was given a file, and is a flag now: only where a name of such a file follows.
RENAMED_WITH_FILE: dict[tuple[str, ...], tuple[str, str, str]] = {("bench", "speed"): ("--jsonl", "--rows", ".jsonl")}
# Spellings of llama.cpp, Ollama and llm for options that exist here under another name. "*" is every command. A name
# that ends in "=" takes the next word behind it; MODEL is an argument here.
SPELLINGS: dict[str, dict[str, str]] = {
    "*": {"-hf": "MODEL", "-hfr": "MODEL", "--hf-repo": "MODEL", "--temperature": "--temp"},
    "chat": {
        "-sys": "--system", "--system-prompt": "--system", "--predict": "--max-tokens", "--n-predict": "--max-tokens",
        "--reasoning-budget": "--think-budget", "--hidethinking": "--thinking=hide", "--think=false": "--no-think",
        "--think=true": "--think", "--think=low": "--effort=low", "--think=medium": "--effort=medium",
        "--think=high": "--effort=high", "--continue": "--resume", "--verbose": "--stats",
        "--chat-template-file": "--template", "--json-schema-file": "--format",
    },
    "quantize": {
        "--output-tensor-type": "--tensor-type ^output[.]weight=",
        "--token-embedding-type": "--tensor-type ^token_embd[.]weight=",
    },
}  # fmt: skip

# Options of other programs without a counterpart: what does it here.
OPTIONS = {
    **dict.fromkeys(
        ("-ngl", "--gpu-layers", "--n-gpu-layers", "-ts", "--tensor-split", "-sm", "--split-mode", "-mg", "--main-gpu"),
        "dsr places the layers by itself; to see where: dsr plan MODEL",
    ),
    **dict.fromkeys(
        ("-ot", "--override-tensor", "-cmoe", "--cpu-moe", "-ncmoe", "--n-cpu-moe"),
        "dsr places the experts by itself; to see where: dsr plan MODEL",
    ),
    **dict.fromkeys(("-ctk", "--cache-type-k", "-ctv", "--cache-type-v"), "the type of the KV cache: --kv-type q8_0"),
    **dict.fromkeys(
        ("-fa", "--flash-attn", "--mlock", "--no-mmap", "-b", "--batch-size", "-ub", "--ubatch-size", "--jinja"),
        "dsr chooses this by itself; leave the option out",
    ),
    **dict.fromkeys(
        ("-cnv", "--conversation", "-i", "--interactive"), "without a question, dsr chat is a conversation"
    ),
    **dict.fromkeys(("-no-cnv", "--single-turn", "-st"), "with a question, dsr chat answers once"),
    **dict.fromkeys(("-md", "--model-draft"), "a model that drafts: dsr chat MODEL --draft SMALL-MODEL"),
    **dict.fromkeys(
        ("--keepalive", "--keep-alive"), "models stay loaded in dsr serve only: dsr serve --keep-alive 10m"
    ),
    "--no-stream": "a pipe gets the whole answer; --json gives one object",
    "-s": "the seed: --seed 1; the system prompt: --system TEXT",
    **dict.fromkeys(
        ("--local-dir", "--cache-dir"), "dsr keeps models in the Hugging Face cache; HF_HUB_CACHE moves it"
    ),
    "--token": "set the variable HF_TOKEN, or run hf auth login",
    "--hf-file": "name the quantization: org/repo:Q4_K_M",
    "--from": "write the program before the model, as in ollama:NAME; to list them: dsr list --from ollama",
    "--insecure": "dsr always checks certificates; SSL_CERT_FILE names more of them",
    "--option": "each setting has its own option, such as --temp 0.6",
    "-o": "each setting has its own option, such as --temp 0.6",
    "--imatrix-file": "the importance matrix: --imatrix FILE",
    "--tensor-type-file": "give --tensor-type several times, or write a recipe: --save-recipe FILE shows one",
    "--prune-layers": "dsr removes experts, not layers: dsr experts prune",
    "--keep-split": "to write several files: --split-max-size 4GiB",
    "--override-kv": "dsr copies the metadata as it is",
    **dict.fromkeys(("--include-weights", "--exclude-weights"), "dsr uses all weights of the matrix"),
    "--outfile": "the file to write: -o FILE",
    "--outtype": "the type: --recipe f16",
    "-m": "the model is an argument: put it after the command",
    "--model": "the model is an argument: put it after the command",
}

_ROOT_OPTIONS = ("--version", "--help", "-h", "--install-completion", "--show-completion")


def translated(args: Sequence[str], commands: Collection[str], *, strict: bool = True) -> list[str]:
    """The command line in dsr's own words. `commands` are the names of its commands.

    A first argument with white space is a question, and a first option that is not dsr's is one of `dsr chat`.
    Raises UsageError for a word that says what does it here, and for an unknown one; not so if `strict` is False.
    """
    if not args:
        return []
    first, rest = args[0], list(args[1:])
    if first == "help":
        return _help(rest, commands)
    if first in commands:
        return _options([first, *rest], strict=strict)
    word = WORDS.get(first)
    if word is not None and word.now:
        return _options([*word.now, *rest], strict=strict)
    if any(character.isspace() for character in first) or _is_option_of_chat(first):
        return _options(["chat", *args], strict=strict)
    if not strict or first in _ROOT_OPTIONS or first.startswith("-"):
        return list(args)
    if word is not None:
        raise UsageError(f"dsr has no command {first} ({word.of} has)", hint=word.says)
    raise _unknown(first, commands)


def hint_for_option(option: str, command: str, known: Sequence[str] | None = None) -> str:
    """What to type instead of an option that the command does not have; `known` are options that look like it."""
    name = option.partition("=")[0]
    if name in OPTIONS:
        return OPTIONS[name]
    near = difflib.get_close_matches(name, known or (), n=1, cutoff=0.75)
    return f"did you mean {near[0]}?" if near else f"to see the options: {command} --help"


def _is_option_of_chat(first: str) -> bool:
    return first.startswith("-") and len(first) > 1 and first.partition("=")[0] not in _ROOT_OPTIONS


def _help(rest: list[str], commands: Collection[str]) -> list[str]:
    named = [each for each in rest if not each.startswith("-")]
    if not named:
        return ["--help"]
    return [*translated(named, commands), "--help"]


def _unknown(first: str, commands: Collection[str]) -> UsageError:
    near = difflib.get_close_matches(first.lower(), (*commands, *WORDS), n=1, cutoff=0.7)
    if near:
        hint = f"did you mean dsr {near[0]}?"
    elif _may_be_a_model(first):
        hint = f"to talk to a model: dsr chat {first}"
    else:
        hint = f'all commands: dsr --help; to ask a question: dsr chat "{first} ..."'
    return UsageError(f"dsr has no command {first!r}", hint=hint)


def _may_be_a_model(word: str) -> bool:
    from dsr.models.references import guess  # takes a moment, which an error may take

    return guess(word).kind != "no"


def _options(args: list[str], *, strict: bool = True) -> list[str]:
    """The line with the spellings of options that dsr uses."""
    path = next((path for path in RENAMED if tuple(args[: len(path)]) == path), ())
    known = SPELLINGS["*"] | SPELLINGS.get(args[0], {}) | RENAMED.get(path, {})
    if (before := RENAMED_WITH_FILE.get(tuple(args[:2]))) is not None:
        old, new, ending = before
        following = zip(args, [*args[1:], ""], strict=True)
        args = [new if each == old and value.endswith(ending) else each for each, value in following]
    found, words = list[str](), iter(args)
    for each in words:
        if each == "--":
            return [*found, each, *words]
        if each in known:
            found += _respelled(known[each], args[0], words)
            continue
        name, equals, value = each.partition("=")
        if equals and name in known:
            found += _respelled(known[name], args[0], rest := iter([value]))
            found += rest
        elif strict and re.fullmatch(r"-[a-z]{2,}", each) and each in OPTIONS:  # the parser would read -ngl as -n gl
            raise UsageError(f"dsr {args[0]} has no option {each}", hint=OPTIONS[each])
        else:
            found.append(each)
    return found


def _respelled(now: str, command: str, words: Iterator[str]) -> list[str]:
    """An option in dsr's spelling, with the next word where it takes it."""
    if now == "MODEL":
        return [*(["--model"] if command == "chat" else []), *islice(words, 1)]
    option, _, rest = now.partition(" ")
    if not now.endswith("="):
        return [option]
    return [option, *(rest + value for value in islice(words, 1))]
