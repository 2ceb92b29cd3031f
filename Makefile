# Snapferry from a checkout. Each target installs what it misses first: it says what, and asks unless root or YES=1.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
# A run starts some hundred processes: none of them shall compile the sources again.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin
SEED ?= 1
SECONDS ?= 600
PARSERS := descriptor cowd sesparse stream fastlz

.PHONY: help install demo demo-stop test torture bench check lint types unit fuzz $(addprefix fuzz-,$(PARSERS)) docs-images clean

help:
	@echo "make demo          migrates a running VM between two simulated clouds; SEED=n varies it, KEEP=1 leaves all up"
	@echo "make demo-stop     ends what KEEP=1 left"
	@echo "make check         lint, types, unit tests"
	@echo "make test          every test"
	@echo "make torture       kills and faults by the hundred; RUNS=n for more, SEED=n for others"
	@echo "make bench         measures against what others do; CASE=name for one, SCALE=0.1 for less data"
	@echo "make fuzz          looks for VMDK files and FastLZ streams that the parsers can't stand, SECONDS=600 for each of the five"
	@echo "make docs-images   the README's screenshots"
	@echo "make clean         removes what the other targets made, .venv included"

install:
	@.ci/install

demo:
	@.ci/install qemu-utils
	@$(BIN)/snapferry demo --seed $(SEED) $(if $(filter-out 0,$(KEEP)),--keep)

demo-stop:
	@if [ -x $(BIN)/snapferry ]; then $(BIN)/snapferry demo --stop; fi

test:
	@.ci/install qemu-utils chromium nginx
	@$(BIN)/pytest -n 6 --dist loadgroup -m "not torture"

torture:
	@.ci/install qemu-utils
	@$(if $(RUNS),RUNS=$(RUNS)) SEED=$(SEED) $(BIN)/pytest -n 4 --dist loadgroup -m torture

bench:
	@.ci/install qemu-utils nginx nbdkit libnbd-bin curl
	@PREFECT_SERVER_LOGGING_LEVEL=CRITICAL PREFECT_LOGGING_LEVEL=ERROR $(BIN)/python -m benchmarks $(if $(SCALE),--scale $(SCALE)) $(if $(PAIRS),--pairs $(PAIRS)) $(CASE)

# Unit tests wait much: four processes of them keep two cores busy.
check:
	@.ci/install qemu-utils nginx
	@$(MAKE) -j2 --output-sync=target lint types unit

lint:
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

# mypy doesn't follow an editable package-dir mapping: it sees the layout that pip installs, made of links.
types:
	@rm -rf build/types && mkdir -p build/types/snapferry
	@cd build/types/snapferry && ln -s ../../../snapferry/* $(addprefix ../../../,blocks cli deployments flows) .
	@cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache -p snapferry

unit:
	@$(BIN)/pytest -q -n 4 --dist loadgroup -m "not slow and not torture"

# What is found lies in build/fuzz: a file that `fuzz_<parser>.one_input` fails on, to be kept in the parser's corpus.
fuzz:
	@.ci/install
	@$(MAKE) -j$$(nproc) --output-sync=target $(addprefix fuzz-,$(PARSERS))

$(addprefix fuzz-,$(PARSERS)): fuzz-%:
	@$(BIN)/python -m tests.vmdk.fuzz $* $(SECONDS)

docs-images:
	@.ci/install qemu-utils chromium
	@$(BIN)/python docs/take_images.py

clean: demo-stop
	@rm -rf .venv .demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
