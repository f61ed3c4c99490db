# `make help` lists what there is.
PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
READY  := $(VENV)/ready

.DEFAULT_GOAL := help
.PHONY: help train digits dashboard test test-all faults audit check format readme study confirm benchmark evidence clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than Python 3.11: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

PHOTOS = data=faded_photos model=micro embed=conv patch=8 pos=sincos optim.lr=3e-3 epochs=30 analyze=true
DIGITS = data=digits model=tiny embed=conv patch=16 pos=learned

train: $(READY) ## set up, train a small network on photographs, show what it learned (no account, no download of data)
	$(RUN) train.py $(PHOTOS) $(ARGS)

digits: $(READY) ## train the default network, a ViT-Tiny, on real digits (no account, no download of data)
	$(RUN) train.py $(DIGITS) $(ARGS)

dashboard: $(READY) ## a page over all runs on disk, for a browser, without a server
	$(RUN) scripts/dashboard.py $(ARGS)

test: $(READY) ## set up, then run the tests
	$(RUN) -m pytest -n auto $(ARGS)

test-all: $(READY) ## the slow ones as well
	$(RUN) -m pytest -n auto -m '' $(ARGS)

faults: $(READY) ## kills, signals and damage in real trainings, 20 times each, into benchmarks/faults.md (an hour)
	$(RUN) -m pytest tests -m promise -n 2 --trials 20 --table benchmarks/faults.md $(ARGS)
	$(RUN) tests/stock_lightning.py 20 >> benchmarks/faults.md
	$(RUN) tests/price.py >> benchmarks/faults.md

audit: $(READY) ## known vulnerabilities of the pinned packages, by PyPI's database; fails where that lacks one
	$(RUN) -m pip install --disable-pip-version-check --quiet pip-audit
	$(RUN) -m pip_audit --strict --no-deps --disable-pip -r constraints.txt

check: $(READY) ## lint, format, types
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy

format: $(READY) ## mend what ruff can mend
	$(RUN) -m ruff check --fix
	$(RUN) -m ruff format

SCENES = model=micro patch=4 optim.lr=3e-3 trainer=cpu logger=csv runs_dir=runs/readme rerun=true hydra.launcher.jobs=2

readme: $(READY) ## train the first jobs anew and write their figures into docs/
	$(RUN) train.py $(PHOTOS) logger=csv runs_dir=runs/readme rerun=true
	$(RUN) train.py $(DIGITS) analyze=true logger=csv runs_dir=runs/readme rerun=true
	$(RUN) train.py -m $(SCENES) data=quadrant,left_of pos=rope,sincos
	$(RUN) train.py -m $(SCENES) data=arrangement 'pos=rope,[learned,rope]' seed=0,1,2
	$(RUN) train.py -m $(SCENES) data=texture,same_different,motif,correlated_channels,isoluminant,stripes pos=none
	$(RUN) train.py -m $(SCENES) data=pointer patch=2 pos=none
	$(RUN) scripts/readme.py runs/readme/*/run.json

name  ?= position
scale ?= cpu

study: $(READY) ## run a study and write its report: make study name=position scale=smoke|cpu|gpu
	$(RUN) scripts/study.py $(name) scale=$(scale) $(ARGS)

confirm: $(READY) ## repeat the studies on fresh seeds, after python scripts/confirm.py --freeze
	$(RUN) scripts/confirm.py $(ARGS)

MICRO = model=micro data.img_size=16 patch=4 trainer=cpu

benchmark: $(READY) ## what the framework adds to a step of a small network, beside a bare loop and beside Lightning alone
	OMP_NUM_THREADS=1 $(RUN) scripts/benchmark.py $(MICRO) peer=bare rounds=15 steps=60 out=benchmarks/micro-beside-bare-loop.json $(ARGS)
	OMP_NUM_THREADS=1 $(RUN) scripts/benchmark.py $(MICRO) peer=lightning rounds=15 steps=60 out=benchmarks/micro-beside-lightning.json $(ARGS)

evidence: $(READY) ## on a machine with a CUDA GPU: tests, speed and memory there, into benchmarks/ (9 minutes)
	$(RUN) scripts/gpu_evidence.py

clean: ## remove the environment; runs and data stay
	rm -rf $(VENV)
