# Each target works alone on a bare machine: Python 3.11 or newer and make; the rest is installed into .venv.
#   make edit    an edited picture, by the model that ships in pretrained_models/toyworld
#   make diffedit  edits of what a prompt names, by the text model of the same folder
#   make repaint  a hole filled by the model of pictures of the same folder, and an animated picture of how
#   make test    style, import rules, tests
#   make benchmark  the shipped models measured on fresh scenes, with every metric, into outputs/benchmark/toyworld
#   make ablation  the paper's ablation in miniature: five trainings of 20 minutes, measured; goes on where it stopped
#   make toyworld  train every model that ships from nothing and measure them, in 4 h; goes on where it stopped
#   make lint    style, import rules and types alone
#   make docs    the documentation site into site/; a dead link or a wrong name is an error
#   make lock    the newest versions of everything into requirements.lock, from which the others install
#   make test-wheel, test-lowest, test-newest  what a user gets who installs without the lock; each in an environment
#                of its own, in a temporary folder that is deleted
#   make clean   remove .venv and what the tools left behind; outputs/ and logs/ stay

# The first of these that is new enough, unless the caller names one: make PYTHON=/usr/bin/python3.13 edit
ifndef PYTHON
PYTHON := $(shell for python in python3.11 python3 python3.12 python3.13 python3.14; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
endif

BIN := .venv/bin
LDM := $(BIN)/ldm
UV := $(BIN)/uv
EXAMPLE := dataset/toyworld_examples
EDITED := outputs/edit
DIFFEDITED := outputs/diffedit
REPAINTED := outputs/repaint

# What touches other libraries: every module's imports, every network, loader, metric and editor, a step of every training
LIBRARY_TESTS := tests/test_repo.py tests/models tests/checkpoints tests/data tests/evaluation tests/editors \
	tests/samplers tests/training tests/cli/test_edit.py

.PHONY: edit diffedit repaint benchmark ablation test toyworld lint docs lock test-wheel test-lowest test-newest clean
.NOTPARALLEL:

edit: .venv/installed
	$(LDM) edit --example --overwrite --outdir $(EDITED)
	@echo "The edited picture is in $(EDITED)/results, with its inputs in $(EDITED)/source and side by side in $(EDITED)/grid."

diffedit: .venv/installed
	$(LDM) diffedit --image $(EXAMPLE)/ball.png --source_prompt "a red ball" --prompt "a blue ball" --show_map --outdir $(DIFFEDITED)
	$(LDM) diffedit --image $(EXAMPLE)/mug.png --source_prompt "a mug" --prompt "a star" --show_map --outdir $(DIFFEDITED)
	@echo "The edited pictures are in $(DIFFEDITED)/results, side by side with what they were made from in $(DIFFEDITED)/grid."

repaint: .venv/installed
	$(LDM) repaint --image $(EXAMPLE)/scene.png --mask_type half --edit fast --gif --plot_schedule --overwrite --outdir $(REPAINTED)
	@echo "The filled picture is in $(REPAINTED)/results, the way there as an animated picture in $(REPAINTED)/process."

benchmark: .venv/installed-benchmark
	$(LDM) benchmark --config configs/benchmark/toyworld.yaml --batch 50
	@echo "The report is outputs/benchmark/toyworld/report.md, with its plots beside it."

ablation: .venv/installed-benchmark
	$(LDM) ablation --config configs/benchmark/ablation.yaml
	@echo "The report is outputs/benchmark/ablation/report.md, with its plots beside it."

toyworld: .venv/installed-benchmark
	$(LDM) reproduce-toyworld

test: lint
	$(TEST_ENVIRONMENT) $(BIN)/python -m pytest -q $(IN_PARALLEL)

lint: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The site is in site/: open site/index.html."

# Toy networks are too small to share among threads; nothing is asked of a hub or of wandb.
IN_PARALLEL := -n auto --maxprocesses 8 --dist worksteal
TEST_ENVIRONMENT := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 HF_HUB_OFFLINE=1 WANDB_MODE=disabled

lock:
	@$(environment)
	$(UV) pip compile setup.py --extra all --universal --python-version 3.11 --no-emit-index-url --upgrade --quiet \
		--custom-compile-command "make lock" --output-file requirements.lock

# An environment in a temporary folder, "$$there", which goes whatever happens.
IN_TEMPORARY_ENVIRONMENT = there=$$(mktemp -d) && trap 'rm -rf "$$there"' EXIT && trap 'exit 130' INT TERM && \
	$(UV) venv --quiet --python $(BIN)/python "$$there/env" && \
	$(UV) pip install --quiet --compile-bytecode --python "$$there/env"

test-lowest: .venv/installed-dev
	@$(IN_TEMPORARY_ENVIRONMENT) --resolution lowest-direct -e '.[dev]' && \
		$(UV) pip list --quiet --python "$$there/env" && \
		$(TEST_ENVIRONMENT) "$$there/env/bin/python" -m pytest -q $(IN_PARALLEL) -p no:cacheprovider $(LIBRARY_TESTS)

test-newest: .venv/installed-dev
	@$(IN_TEMPORARY_ENVIRONMENT) -e '.[dev]' && \
		$(UV) pip list --quiet --python "$$there/env" && \
		$(TEST_ENVIRONMENT) "$$there/env/bin/python" -m pytest -q $(IN_PARALLEL) -p no:cacheprovider $(LIBRARY_TESTS)

# The base alone, from a wheel that was made from the source archive, run outside the clone.
test-wheel: .venv/installed-dev
	@$(IN_TEMPORARY_ENVIRONMENT) --constraint requirements.lock pytest && \
		$(UV) build --quiet --out-dir "$$there" && \
		$(UV) pip install --quiet --compile-bytecode --python "$$there/env" --constraint requirements.lock "$$there"/*.whl && \
		cp tests/wheel.py "$$there" && cd "$$there" && env/bin/python -m pytest -q -p no:cacheprovider wheel.py

# A stamp is written when all is installed, so an interrupted installation goes on, and another lock installs again.
.venv/installed: setup.py requirements.lock
	@$(call install,-e .)
	@touch $@

.venv/installed-benchmark: setup.py requirements.lock
	@$(call install,-e '.[benchmark]')
	@touch .venv/installed $@

.venv/installed-docs: setup.py requirements.lock
	@$(call install,-e '.[docs]')
	@touch .venv/installed $@

.venv/installed-dev: setup.py requirements.lock
	@$(call install,-e '.[all]')
	@touch .venv/installed .venv/installed-benchmark .venv/installed-docs $@

# .venv with uv in it. What is there stays, unless its Python is gone or it was left half made.
define environment
	fail() { echo "error: $$1" >&2; exit 2; }; \
	new_enough() { "$$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }; \
	new_enough "$(PYTHON)" || \
		fail "no Python 3.11 or newer found$(if $(PYTHON),: $(PYTHON) is older or not there); name one: make PYTHON=/path/to/python3"; \
	{ [ -w . ] && { [ ! -e .venv ] || [ -w .venv ]; }; } || \
		fail "$(CURDIR) cannot be written to; clone the project into a folder of your own"; \
	if ! $(BIN)/python -c '' 2>/dev/null; then \
		echo "Installing into .venv with $(PYTHON); the first time this downloads PyTorch and takes some minutes."; \
		"$(PYTHON)" -m venv --clear .venv || \
			fail "$(PYTHON) cannot make a virtual environment in .venv; on Debian and Ubuntu: apt install python3-venv"; \
	fi; \
	new_enough $(BIN)/python || fail ".venv is of a Python before 3.11; make clean, then repeat the command"; \
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null 2>&1 || \
		fail ".venv has no pip; make clean, then repeat the command"; \
	$(UV) --version >/dev/null 2>&1 || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --retries 1 --force-reinstall \
			--constraint requirements.lock uv || \
		fail "pip cannot install uv into .venv, for the reason above; without a network, repeat the command when there is one"
endef

define install
	$(environment); \
	$(UV) pip install --compile-bytecode --python $(BIN)/python --constraint requirements.lock $(1) || \
		fail "uv cannot install what requirements.lock lists, for the reason above; without a network, repeat the command when there is one; where setup.py has changed: make lock"
endef

clean:
	rm -rf .venv build site *.egg-info .pytest_cache .ruff_cache .import_linter_cache
	find configs ldm scripts tests -name __pycache__ -prune -exec rm -rf {} +
