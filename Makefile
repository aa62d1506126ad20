# Each target works alone on a bare machine: Python 3.11 or newer and make; the rest is installed into .venv.
#   make edit    an edited picture, by the model that ships in pretrained_models/toyworld
#   make diffedit  edits of what a prompt names, by the text model of the same folder
#   make repaint  a hole filled by the model of pictures of the same folder, and an animated picture of how
#   make test    style, import rules, tests
#   make benchmark  the shipped models measured on fresh scenes, with every metric, into outputs/benchmark/toyworld
#   make ablation  the paper's ablation in miniature: five trainings of 20 minutes, measured; goes on where it stopped
#   make toyworld  train every model that ships from nothing and measure them, in 4 h; goes on where it stopped
#   make lint    style and import rules alone
#   make clean   remove .venv and what the tools left behind; outputs/ and logs/ stay

# The first of these that is new enough, unless the caller names one: make PYTHON=/usr/bin/python3.13 edit
ifndef PYTHON
PYTHON := $(shell for python in python3.11 python3 python3.12 python3.13 python3.14; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
endif

BIN := .venv/bin
EXAMPLE := dataset/toyworld_examples
EDITED := outputs/edit
DIFFEDITED := outputs/diffedit
REPAINTED := outputs/repaint

.PHONY: edit diffedit repaint benchmark ablation test toyworld lint clean
.NOTPARALLEL:

edit: .venv/installed
	$(BIN)/python scripts/inference.py --image_path $(EXAMPLE)/scene.png --mask_path $(EXAMPLE)/mask.png \
		--reference_path $(EXAMPLE)/exemplar.png --outdir $(EDITED)
	@echo "The edited picture is in $(EDITED)/results, with its inputs in $(EDITED)/source and side by side in $(EDITED)/grid."

diffedit: .venv/installed
	$(BIN)/python scripts/diffedit.py --image $(EXAMPLE)/ball.png --source_prompt "a red ball" --prompt "a blue ball" --show_map --outdir $(DIFFEDITED)
	$(BIN)/python scripts/diffedit.py --image $(EXAMPLE)/mug.png --source_prompt "a mug" --prompt "a star" --show_map --outdir $(DIFFEDITED)
	@echo "The edited pictures are in $(DIFFEDITED)/results, side by side with what they were made from in $(DIFFEDITED)/grid."

repaint: .venv/installed
	$(BIN)/python scripts/repaint.py --image $(EXAMPLE)/scene.png --mask_type half --edit fast --gif --plot_schedule --outdir $(REPAINTED)
	@echo "The filled picture is in $(REPAINTED)/results, the way there as an animated picture in $(REPAINTED)/process."

benchmark: .venv/installed
	$(BIN)/python scripts/benchmark.py --config configs/benchmark/toyworld.yaml --batch 50
	@echo "The report is outputs/benchmark/toyworld/report.md, with its plots beside it."

ablation: .venv/installed
	$(BIN)/python scripts/ablation.py --config configs/benchmark/ablation.yaml
	@echo "The report is outputs/benchmark/ablation/report.md, with its plots beside it."

test: lint
	HF_HUB_OFFLINE=1 WANDB_MODE=disabled $(BIN)/python -m pytest -q

toyworld: .venv/installed
	$(BIN)/python scripts/reproduce_toyworld.py

lint: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

# A stamp is written when pip has finished, so an interrupted install starts over, and a changed setup.py installs again.
.venv/installed: setup.py
	@$(call make_venv)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/installed-dev: setup.py
	@$(call make_venv)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch .venv/installed $@

define make_venv
	if [ -z "$(PYTHON)" ]; then echo "error: no Python 3.11 or newer found; name one: make PYTHON=/path/to/python3" >&2; exit 2; fi; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		echo "Installing into .venv with $(PYTHON); the first time this downloads PyTorch and takes some minutes."; \
		$(PYTHON) -m venv --clear .venv; \
	fi
endef

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .import_linter_cache
	find configs ldm scripts tests -name __pycache__ -prune -exec rm -rf {} +
