from __future__ import annotations

import pytest

from dsr.models.catalog import Catalog, CatalogError, Sampling, load, parameter_count, read
from runtime.base.errors import UsageError

ENTRY = """
[family]
"qwen3" = 1

[documents]
card = "the card"

[[model]]
names = ["tiny:1b", "tiny-model"]
model = "Tiny-1B"
base = "Big-1B"
distill = true
family = "qwen3"
parameters = 1_000_000_000
licence = "MIT"
gguf = "org/Tiny-GGUF"
original = "org/Tiny"
thinking = "always"
sampling = { temperature = 0.6 }
unverified = ["licence"]
[model.source]
card = ["base", "parameters", "gguf", "original", "thinking", "sampling"]
"""


def changed(old: str, new: str) -> str:
    assert old in ENTRY
    return ENTRY.replace(old, new)


def added(line: str, fact: str) -> str:
    """The entry with one more line, whose fact nobody verified."""
    return changed('unverified = ["licence"]', f'{line}\nunverified = ["licence", "{fact}"]')


def test_a_tag_says_what_it_is() -> None:
    entry = load().lookup("deepseek-r1:7b")
    assert entry is not None
    assert entry.describe() == "DeepSeek-R1-Distill-Qwen-7B (a distill of Qwen2.5-Math-7B)"
    assert (entry.distill, entry.system_prompt, entry.sampling) == (True, False, Sampling(0.6, 0.95))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("deepseek-r1:671b", "DeepSeek-R1 (671B parameters, 37B active)"),
        ("deepseek-r1:1.5b", "DeepSeek-R1-Distill-Qwen-1.5B (a distill of Qwen2.5-Math-1.5B)"),
        ("deepseek-r1:8b", "DeepSeek-R1-Distill-Llama-8B (a distill of Llama-3.1-8B)"),
        ("deepseek-r1:14b", "DeepSeek-R1-Distill-Qwen-14B (a distill of Qwen2.5-14B)"),
        ("deepseek-r1:32b", "DeepSeek-R1-Distill-Qwen-32B (a distill of Qwen2.5-32B)"),
        ("deepseek-r1:70b", "DeepSeek-R1-Distill-Llama-70B (a distill of Llama-3.3-70B-Instruct)"),
        ("deepseek-r1-0528:8b", "DeepSeek-R1-0528-Qwen3-8B (a distill of Qwen3-8B-Base)"),
        ("QwQ", "QwQ-32B (32.5B parameters)"),
        ("qwen3:30B-A3B", "Qwen3-30B-A3B (30.5B parameters, 3.3B active)"),
        ("Qwen3-8B", "Qwen3-8B (8.2B parameters)"),
        ("gpt-oss:120b", "gpt-oss-120b (117B parameters, 5.1B active)"),
        ("phi-4-reasoning", "Phi-4-reasoning (14B parameters)"),
    ],
)
def test_names_and_real_names_are_found_in_any_case(name: str, said: str) -> None:
    entry = load().lookup(name)
    assert entry is not None and entry.describe() == said


@pytest.mark.parametrize("name", ["deepseek-r1", "DeepSeek-R1", "qwen3", "gpt-oss", "no-such-model", ""])
def test_a_name_that_several_models_share_or_none_has_is_not_guessed(name: str) -> None:
    assert load().lookup(name) is None


def test_everything_called_deepseek_r1_but_the_671b_one_is_marked_as_a_distill() -> None:
    tags = load().tags("deepseek-r1")
    assert [entry.name for entry in tags if not entry.distill] == ["deepseek-r1:671b"]
    assert len(tags) == 7


def test_the_llama_distills_carry_the_llama_licence() -> None:
    licences = {e.name: e.licence for e in load().entries if e.distill and e.base and e.base.startswith("Llama")}
    assert licences == {"deepseek-r1:8b": "MIT + Llama 3.1", "deepseek-r1:70b": "MIT + Llama 3.3"}


def test_every_model_made_from_llama_names_the_llama_licence() -> None:
    made = [entry for entry in load().entries if "Llama" in (entry.base or "")]
    assert len(made) == 6
    assert all("Llama 3" in entry.licence for entry in made)


def test_only_the_first_r1_and_its_distills_want_no_system_prompt() -> None:
    without = {entry.name.partition(":")[0] for entry in load().entries if not entry.system_prompt}
    assert without == {"deepseek-r1"}


def test_every_entry_can_be_found_by_both_of_its_repositories() -> None:
    catalog = load()
    for entry in catalog.entries:
        assert catalog.entry_for_repo(entry.gguf.upper()) is entry
        assert catalog.entry_for_repo(entry.original) is entry
    assert catalog.entry_for_repo("org/unknown") is None


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("deepseek-r1:7", "deepseek-r1:7b"),
        ("qwen3:8", "qwen3:8b"),
        ("gptoss:20b", "gpt-oss:20b"),
        ("qwq32b", "qwq:32b"),
    ],
)
def test_a_typo_gets_suggestions(typo: str, meant: str) -> None:
    assert meant in load().suggest(typo)


def test_nonsense_gets_no_suggestion() -> None:
    assert load().suggest("xxxxxxxxxxxx") == []


def test_a_wrong_size_of_a_known_family_is_answered_with_the_family() -> None:
    assert set(load().suggest("gpt-oss:7b")) == {"gpt-oss:20b", "gpt-oss:120b"}


def test_read_keeps_facts_with_their_documents() -> None:
    entry = read([ENTRY]).lookup("tiny-model")
    assert entry is not None
    assert dict(entry.source)["base"] == "the card"
    assert (entry.unverified, entry.active_parameters, entry.layers) == (("licence",), 1_000_000_000, None)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (changed('licence = "MIT"', 'licence = "MIT"\nlicense = "MIT"'), "tiny:1b: unknown key 'license'"),
        (changed("temperature", "temp"), "tiny:1b: unknown key 'sampling.temp'"),
        (changed('licence = "MIT"\n', ""), "tiny:1b: missing key 'licence'"),
        (changed('"base", "param', '"param'), "tiny:1b: 'base' needs a source"),
        (changed('unverified = ["licence"]', "unverified = []"), "tiny:1b: 'licence' needs a source"),
        (changed('card = ["base"', 'card = ["licence", "base"'), "tiny:1b: 'licence' needs a source"),
        (changed('card = ["base"', 'card = ["layers", "base"'), "tiny:1b: source: there is no 'layers'"),
        (added("shape = { width = 64, kv_heads = 1, colour = 2 }", "shape"), "tiny:1b: unknown key 'shape.colour'"),
        (added("shape = { width = 64 }", "shape"), "tiny:1b: shape: a shape needs a width, and cached heads"),
        (added("shape = { kv_heads = 1, head = 64 }", "shape"), "tiny:1b: shape: .*'width'"),
        (
            added("shape = { width = 64, kv_heads = 1, head = 64, full = 2 }", "shape"),
            "tiny:1b: shape: layers that do not see the whole text have a window or a state",
        ),
        (changed('card = ["base"', 'card = ["colour", "base"'), "tiny:1b: source: 'colour' is not a fact"),
        (changed('card = ["base"', 'book = ["base"'), "tiny:1b: source: unknown document 'book'"),
        (changed('= "qwen3"', '= "qwen4"'), "tiny:1b: family: 'qwen4' is not one of qwen3"),
        (changed('"always"', '"sometimes"'), "tiny:1b: thinking: 'sometimes' is not one of"),
        (added('effort = ["high", "low"]', "effort"), "tiny:1b: effort: must be some of minimal, low"),
        (added('effort = ["some"]', "effort"), "tiny:1b: effort: must be some of minimal, low"),
        (added('released = "2026-13"', "released"), "tiny:1b: released: '2026-13' is not a month"),
        (added('released = "April"', "released"), "tiny:1b: released: 'April' is not a month"),
        (added('draft = "tiny:0b"', "draft"), "tiny:1b: draft: 'tiny:0b' is not in the catalogue"),
        (added('mtp = "org/Tiny-MTP-GGUF"', "draft"), "tiny:1b: source: there is no 'draft'"),
        (changed('"qwen3" = 1', '"qwen3" = 1\n"qwq" = 1'), "family: two families have one place"),
        (changed('"tiny-model"', '"Tiny-Model"'), "tiny:1b: names: 'Tiny-Model' must be lower case"),
        (changed("parameters = 1_000", "active_parameters = 5_000_000_000\nparameters = 1_000"), "active_parameters"),
        (ENTRY + ENTRY[ENTRY.index("[[model]]") :], "tiny:1b: 'tiny"),
        ("[colours]\nred = 1\n", "unknown table 'colours'"),
        ("[[model]]\nmodel = 'X'\n", "X: names: at least one is needed"),
    ],
)
def test_a_fault_in_the_file_names_the_entry_and_the_key(text: str, complaint: str) -> None:
    with pytest.raises(CatalogError, match=complaint.replace("[", r"\[")):
        read([text])


def test_an_empty_catalogue_knows_nothing() -> None:
    assert read([]) == read([""]) == Catalog(())


@pytest.mark.parametrize(
    ("count", "text"),
    [(671_000_000_000, "671B"), (8_200_000_000, "8.2B"), (600_000_000, "0.6B"), (12_239_152, "12.2M")],
)
def test_parameter_counts_read_like_the_vendors_write_them(count: int, text: str) -> None:
    assert parameter_count(count) == text


def test_the_catalogue_knows_the_models_of_2026_and_keeps_those_of_2025() -> None:
    entries = load().entries
    assert len(entries) >= 70
    assert sum(entry.released >= "2026" for entry in entries if entry.released) >= 15
    known = {entry.name for entry in entries}
    assert {"qwen3.6:27b", "gemma4:e4b", "nemotron-3:30b-a3b", "glm-4.7-flash:30b-a3b", "lfm2.5:8b-a1b"} <= known
    assert {"qwen3:8b", "qwq:32b", "deepseek-r1:7b", "phi-4-reasoning:14b", "gpt-oss:20b"} <= known


def test_families_stand_together_and_the_most_used_one_is_first() -> None:
    families = [entry.family for entry in load().entries]
    assert families == sorted(families, key=families.index)
    assert families[0] == "qwen3.6"


def test_each_fact_of_a_new_model_has_a_document_or_is_called_unverified() -> None:
    entry = load().lookup("qwen3.6:35b-a3b")
    assert entry is not None
    assert dict(entry.source)["released"] == "github.com/QwenLM/Qwen3.6, README.md"
    assert (entry.released, entry.quants[0], entry.mtp) == ("2026-04", "UD-Q4_K_XL", "unsloth/Qwen3.6-35B-A3B-MTP-GGUF")
    assert (entry.verified("licence"), entry.verified("sampling")) == (True, "sampling" not in entry.unverified)


def test_the_vendors_penalties_are_kept() -> None:
    entry = load().lookup("qwen3.5:35b-a3b")
    assert entry is not None
    assert entry.sampling == Sampling(1.0, 0.95, 20, 0.0, presence_penalty=1.5)


def test_the_reach_is_the_vendors_yarn_or_the_context() -> None:
    reaches = {
        name: entry.reach for name in ("qwen3.6:27b", "gemma4:e2b", "qwen3:8b") if (entry := load().lookup(name))
    }
    assert reaches == {"qwen3.6:27b": 1048576, "gemma4:e2b": 131072, "qwen3:8b": 131072}


def test_new_is_what_came_in_the_half_year_before_the_newest() -> None:
    old = changed("names", 'released = "2026-01"\nnames').replace('"licence"]', '"licence", "released"]')
    new = old.replace("2026-01", "2026-07").replace("tiny", "newer").replace("Tiny-1B", "Newer-1B")
    catalog = read(
        [old, new.replace('"qwen3"', '"newer"', 1).replace('= "qwen3"', '= "newer"').replace(" = 1\n", " = 2\n", 1)]
    )
    assert [entry.name for entry in catalog.newest] == ["newer:1b"]
    assert [entry.name for entry in catalog.of_last(7)] == ["tiny:1b", "newer:1b"]


def test_a_family_is_found_in_any_case_and_by_how_its_name_begins() -> None:
    assert {entry.name for entry in load().of_family("GPT-OSS")} == {"gpt-oss:20b", "gpt-oss:120b"}
    assert {entry.family for entry in load().of_family("qwen3")} == {"qwen3"}
    assert {entry.family for entry in load().of_family("Gemma")} == {"gemma4", "gemma3", "gemma3n"}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gemma5", "did you mean gemma4, gemma3, gemma3n?"),
        ("gptoss", "did you mean gpt-oss?"),
        ("xxxxxxxx", "to see the families: dsr list --catalog"),
        ("", "to see the families: dsr list --catalog"),
    ],
)
def test_an_unknown_family_is_answered_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"no family of models is called '{name}'") as error:
        load().of_family(name)
    assert error.value.hint == hint
