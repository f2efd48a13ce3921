"""Run llama-server's own tests, unmodified, against `dsr serve`, and tell why each failure is meant.

    python tests/peers/llama_server_tests.py LLAMA_CPP --python ENVIRONMENT/bin/python [FILE ...] [-k EXPRESSION]

LLAMA_CPP is the source that dsr pins (tests/peers/README.md). ENVIRONMENT has pytest, pytest-xdist, filelock, requests,
wget and openai. The tests start their server by LLAMA_SERVER_BIN_PATH: that is this script (`--as-server`), which turns
the options of llama-server into those of dsr. Their models cannot be fetched here, so the embedded model takes their
place. A plugin of pytest lets `match_regex` be true, since the texts are another model's, and counts the tests that
needed it. Slow tests, which need large models, are left out.

Exit code 1 if a test fails that `MEANT` does not explain.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import stat
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as Xml
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = (
    "basic", "chat_completion", "completion", "stream", "template", "tokenize", "tool_call", "compat_anthropic",
    "compat_oai_responses", "metrics", "security",
)  # fmt: skip
LONGEST = 2048  # tokens that the embedded model was trained with
NANO = ROOT / "dsr" / "data" / "nano.gguf"

# The failures that are meant: a pattern of the test's name, and why. The first that matches counts.
MEANT: tuple[tuple[str, str], ...] = (
    (
        r"completion::test_completion(_stream)?\[|test_completion_prompt_cache|test_chat_completion_cached_tokens"
        r"|test_tokenize_with_bos|test_completion_response_fields\[.*-32-",
        "another model's tokens: the test counts those of its own vocabulary",
    ),
    (
        r"test_completion_parallel_slots|test_completion_unified|test_metrics_generation_rate|test_logprobs",
        "another model's text: the embedded model ends its reply earlier, or closes a thought",
    ),
    (r"test_completion_stream_vs_non_stream", "dsr serve has no seed for requests that name none"),
    (r"test_server_props", "this script gives dsr the context of one slot, in which dsr opens one slot and not two"),
    (
        r"with_openai_library|::test_chat_completion(_stream)?\[",
        "the version is dsr's own (dsr-N), not llama.cpp's (bN); texts and tokens would differ, too",
    ),
    (
        r"test_cancel_request",
        "dsr answers before its model is open, and has no slots until then: on a busy machine, longer than two seconds",
    ),
    (r"test_n_probs_post", "post_sampling_probs: dsr tells the model's probabilities, and refuses others"),
    (
        r"__verbose|test_chat_template$|test_chat_template_assistant_prefill|vllm_compat|test_verbose_debug",
        "dsr has no debugging field __verbose; /apply-template tells the prompt",
    ),
    (r"test_return_progress|llama_telemetry", "dsr tells progress at /completion, not in OpenAI's routes"),
    (r"test_server_models|aliases_and_tags", "dsr lists all models of the machine by their own names"),
    (r"test_server_multiple_addresses", "dsr listens on one address"),
    (r"test_no_ui|test_server_slots|test_metrics_disabled", "dsr has no option that turns a route off"),
    (r"test_metrics_(prometheus|prompt_processed|predicted_total|embedding)", "dsr's metrics have names of their own"),
    (r"stream::", "dsr has no streams that go on without their client, and this model cannot be fetched here"),
    (
        r"test_reasoning\[.*-(on|off)-|test_reasoning\[(deepseek|Qwen-QwQ|CohereForAI)",
        "thinking is an option of a request, not of dsr serve; without it the template decides (enable_thinking)",
    ),
    (r"test_add_generation_prompt\[.*-False\]", "dsr renders prompts for an answer"),
    (r"test_access_static_assets", "dsr's page has other files"),
    (r"test_cors_o", "dsr answers pages of other origins only if --cors lists them, and refuses the others with 403"),
    (r"test_cors_proxy", "dsr is no proxy"),
    (r"vision_base64_with_multimodal_model", "this model cannot be fetched here; dsr reads no images"),
    (r"test_local_media_file|vision|with_image", "dsr reads no images, and says so with 400"),
    (r"test_anthropic_empty_messages", "no message is an error in Anthropic's API, too"),
)

# What the tests call by name, in Jinja.
TEMPLATES = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "command-r": "{% for m in messages %}<|START_OF_TURN_TOKEN|><|{{ {'system': 'SYSTEM', 'user': 'USER'}.get(m.role, "
    "'CHATBOT') }}_TOKEN|>{{ m.content }}<|END_OF_TURN_TOKEN|>{% endfor %}"
    "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}",
    "llama3": "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
}

PLUGIN = '''
"""Comes before the tests: their models are not fetched, and texts of another model are not compared."""
import os, sys
sys.path.insert(0, os.getcwd())
import pytest, utils

_needed = set()
_current = [""]

def match_regex(regex, text):
    _needed.add(_current[0])
    return isinstance(text, str)

utils.match_regex = match_regex
utils.ServerPreset.load_all = staticmethod(lambda: None)

_start, _stop = utils.ServerProcess.start, utils.ServerProcess.stop
_kept = {}  # the options of the server that runs, and its process

def start(self, **options):
    wanted = repr(sorted((name, value) for name, value in vars(self).items() if name != "process"))
    if wanted in _kept and _kept[wanted].poll() is None:
        self.process = _kept[wanted]
        utils.server_instances.add(self)
        return
    end_kept()
    _start(self, **options)
    _kept[wanted] = self.process

def stop(self):
    utils.server_instances.discard(self)
    self.process = None

def end_kept():
    for process in _kept.values():
        process.terminate()
        process.wait()
    _kept.clear()

if "DSR_REUSE" in os.environ:
    utils.ServerProcess.start, utils.ServerProcess.stop = start, stop
    pytest_sessionfinish = lambda session: end_kept()

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    _current[0] = item.nodeid

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if call.when == "call" and item.nodeid in _needed:
        item.user_properties.append(("text", "1"))
        outcome.get_result().user_properties = list(item.user_properties)
'''


def as_server(options: list[str]) -> None:
    """Become `dsr serve` with the options of llama-server."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("port", "host", "api-key", "ctx-size", "parallel", "alias", "chat-template", "chat-template-file"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--temp", type=float)
    parser.add_argument("--hf-repo")
    parser.add_argument("--kv-unified", action="store_true")
    given, _ = parser.parse_known_args(options)
    # Their model has no template, for which llama-server takes chatml.
    template = TEMPLATES.get(given.chat_template or "chatml", given.chat_template)
    if given.chat_template_file:
        template = Path(given.chat_template_file).read_text()
    command = [sys.executable, "-m", "dsr", "serve", "-t", "1", "--port", given.port]
    command += ["--host", given.host.partition(",")[0]]
    if given.hf_repo:
        command += [str(_model(given.temp, template)), "--alias", "*"]
        command += [part for name in (given.alias or "").split(",") if name for part in ("--alias", name)]
        if given.ctx_size:  # theirs is divided among the slots, and one answer of dsr may use all of it
            slots = 1 if given.kv_unified else int(given.parallel or 1)
            command += ["--ctx-size", str(min(int(given.ctx_size) // slots, LONGEST))]
    command += ["--slots", given.parallel] if given.parallel else []
    command += ["--api-key", given.api_key] if given.api_key else []
    os.execv(command[0], command)


def _model(temperature: float | None, template: str | None) -> Path:
    """The embedded model with this temperature and this chat template, which dsr reads from the file."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter
    from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata

    name = hashlib.sha256(f"{temperature} {template}".encode()).hexdigest()[:16]
    path = Path(os.environ["DSR_HOME"]) / f"nano-{name}.gguf"
    if not path.exists():
        changed = {}
        if temperature is not None:
            changed["general.sampling.temp"] = MetadataDetails(GGUFValueType.FLOAT32, temperature)
        if template is not None:
            changed["tokenizer.chat_template"] = MetadataDetails(GGUFValueType.STRING, template)
        reader = GGUFReader(NANO)
        unfinished = path.with_suffix(f".{os.getpid()}")
        architecture = reader.fields["general.architecture"].contents()
        copy_with_new_metadata(reader, GGUFWriter(unfinished, architecture), changed, [])
        unfinished.rename(path)
    return path


@dataclass(frozen=True)
class Outcome:
    """`why` is the end of the first failure's message; `text`: a text of another model was not compared."""

    name: str
    file: str
    kind: str
    why: str
    text: bool


def outcomes(report: Path) -> Iterator[Outcome]:
    for case in Xml.parse(report).iter("testcase"):
        file = case.get("classname", "").rpartition(".")[2].removeprefix("test_")
        bad = next((case.find(tag) for tag in ("failure", "error") if case.find(tag) is not None), None)
        kind = "failed" if bad is not None else "skipped" if case.find("skipped") is not None else "passed"
        why = " ".join(((bad.get("message") if bad is not None else "") or "").split())[:200]
        yield Outcome(case.get("name", ""), file, kind, why, case.find("properties/property[@name='text']") is not None)


def meant(outcome: Outcome) -> str:
    name = f"{outcome.file}::{outcome.name}"
    return next((why for pattern, why in MEANT if re.search(pattern, name)), "")


def table(found: list[Outcome]) -> bool:
    """Print what happened; returns whether everything is as `MEANT` says."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for each in found:
        rows[each.file][each.kind] += 1
        rows[each.file]["text"] += each.text and each.kind == "passed"
    print("| file | passed | of these without their text | failed | skipped |\n| --- | --- | --- | --- | --- |")
    for file in FILES:
        row = rows[file]
        print(f"| test_{file} | {row['passed']} | {row['text']} | {row['failed']} | {row['skipped']} |")
    whole = sum(rows.values(), Counter())
    print(f"| all | {whole['passed']} | {whole['text']} | {whole['failed']} | {whole['skipped']} |\n")
    reasons: dict[str, list[str]] = defaultdict(list)
    good = True
    for each in found:
        why = meant(each)
        if each.kind == "failed":
            good &= bool(why)
            reasons[why or "NOT MEANT"].append(f"{each.file}::{each.name}" + ("" if why else f": {each.why}"))
    for why, names in sorted(reasons.items(), key=lambda item: -len(item[1])):
        print(f"{len(names)} x {why}")
        print("".join(f"    {name}\n" for name in names), end="")
    return good


def main() -> None:
    if sys.argv[1:2] == ["--as-server"]:
        as_server(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama_cpp", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("-k", default="")
    parser.add_argument(
        "--reuse", action="store_true", help="let tests with equal options share a server: a quick look"
    )
    parser.add_argument("--report", type=Path, help="keep pytest's XML here")
    parser.add_argument("files", nargs="*")
    given = parser.parse_intermixed_args()
    tests = given.llama_cpp / "tools" / "server" / "tests"
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "dsr_plugin.py").write_text(PLUGIN)
        server = home / "llama-server"
        server.write_text(
            f'#!/bin/sh\nunset PYTHONPATH\nPYTHONPATH={ROOT} exec {sys.executable} {__file__} --as-server "$@"\n'
        )
        server.chmod(server.stat().st_mode | stat.S_IXUSR)
        report = given.report or home / "report.xml"
        env = {
            **os.environ,
            "LLAMA_SERVER_BIN_PATH": str(server),
            "DSR_HOME": str(home),
            "HF_HOME": str(home / "hf"),
            "PYTHONPATH": str(home),
            "PYTHONDONTWRITEBYTECODE": "1",
            **({"DSR_REUSE": "1"} if given.reuse else {}),
            "PORT": os.environ.get("PORT", "18480"),
        }
        files = [f"unit/test_{each}.py" for each in given.files or FILES]
        command = [given.python, "-m", "pytest", "-q", "-p", "dsr_plugin", "-p", "no:cacheprovider", "-m", "not slow"]
        command += ["--timeout=180", "--junitxml", str(report), "-k", given.k, "--tb=short", "-rN", *files]
        with (home / "log").open("wb") as log:
            subprocess.run(command, cwd=tests, env=env, stdout=log, stderr=log, check=False)
        if not report.exists():
            sys.exit((home / "log").read_text()[-3000:])
        found = list(outcomes(report))
    sys.exit(0 if table(found) else 1)


if __name__ == "__main__":
    main()
