# Everything here needs Python >= 3.10 and make, and installs the rest into .venv.
PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python

.DEFAULT_GOAL := help
.PHONY: help demo test test-endurance coverage test-stack collector check format generate pages bench bench-recorder bench-footprint bench-compare bench-agreement bench-compare-alarms bench-alarms fuzz-exactness fuzz chaos bench-sync bench-ingest bench-overload bench-outage bench-learning pages-alarms bench-gaps bench-exposition clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed; name one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "Python's venv module is needed (on Debian: apt install python3-venv)" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

.venv/.demo: pyproject.toml | $(BIN)/uv
	@echo "installing what the demo needs into .venv ..." && $(UV) -e '.[all]' --group demo && touch $@

.venv/.dev: pyproject.toml | $(BIN)/uv
	@echo "installing what tests and checks need into .venv ..." && $(UV) -e '.[all]' --group demo --group test --group check && touch $@

demo: .venv/.demo ## Real flights through model, processor and verdict, in a minute or two; ARGS=--help tells more
	@$(BIN)/python examples/flights/demo.py $(ARGS)

test: .venv/.dev ## All tests that need no other server, but for those of test-endurance
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --ignore tests/stack -m 'not endurance'

test-endurance: .venv/.dev ## The processor under kill -9, floods, hostile input and days of rows (three minutes)
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m endurance tests/processor

coverage: .venv/.dev ## The same tests, and which lines they run (half as long again)
	@$(BIN)/python -m coverage erase
	@$(BIN)/python -m coverage run -m pytest --numprocesses 2 --dist loadfile --ignore tests/stack
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report

test-stack: .venv/.dev ## Tests against the real programs of the stack, which are built once
	@$(BIN)/python collector-config/build.py > /dev/null
	@$(BIN)/python -m pytest tests/stack

collector: .venv/.dev ## Our distribution of the collector; prints where it is
	@$(BIN)/python collector-config/build.py collector

check: .venv/.dev ## Format, lint, types, import contracts, generated files, known vulnerabilities
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@PYTHONPATH=processor $(BIN)/lint-imports
	@$(BIN)/python semconv/generate.py --check
	@$(BIN)/python .ci/audit.py

format: .venv/.dev ## Format the code and mend what ruff can
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

generate: .venv/.dev ## Constants and reference page from semconv/registry.yaml
	@$(BIN)/python semconv/generate.py

pages: .venv/.dev ## Pages of three sets of real data, and their pictures
	@$(BIN)/python examples/compare/pages.py

pages-alarms: .venv/.dev ## What the alarms say of real data, day by day (a quarter of an hour)
	@PYTHONPATH=examples/compare $(BIN)/python examples/alarms/page.py $(ARGS)

bench: bench-recorder bench-footprint bench-compare bench-agreement bench-compare-alarms bench-alarms ## All benchmarks, one after the other

bench-recorder: .venv/.dev ## The recorder against its peers
	@$(BIN)/python benchmarks/recorder.py

bench-footprint: .venv/.dev ## What the model process installs and imports
	@$(BIN)/python benchmarks/footprint.py

bench-compare: .venv/.dev ## Comparing two data sets, against its peers
	@$(BIN)/python benchmarks/compare.py

bench-agreement: .venv/.dev ## Drift measures against the truth and other tools
	@$(BIN)/python benchmarks/agreement.py

bench-compare-alarms: .venv/.dev ## False alarms of a comparison, and what it finds
	@$(BIN)/python benchmarks/compare_alarms.py

bench-alarms: .venv/.dev ## False alarms of the alarm budget, and how soon a change is seen (hours; goes on where it was); ARGS=--quick
	@$(BIN)/python benchmarks/alarms.py $(ARGS)

bench-learning: .venv/.dev ## False alarms while what is normal is learnt, delays, memory (half an hour)
	@$(BIN)/python benchmarks/learning.py $(ARGS)

bench-outage: .venv/.dev ## A model's calls, memory and counts while its receiver is away, slow, refuses (ten minutes); ARGS="--rounds 1"
	@$(BIN)/python benchmarks/outage.py $(ARGS)

bench-exposition: .venv/.dev ## What a scrape takes, beside prometheus_client (a minute)
	@$(BIN)/python benchmarks/exposition.py $(ARGS)

bench-gaps: .venv/.dev ## False alarms at other row rates, in sessions, in bursts of retries (an hour)
	@$(BIN)/python benchmarks/gaps.py $(ARGS)

bench-sync: .venv/.dev ## What synced commits cost, and what they are good for (power cuts need root)
	@$(BIN)/python benchmarks/sync.py

bench-ingest: .venv/.dev ## How much the processor takes in, beside the collector (20 minutes; goes on where it was); ARGS=--quick
	@$(BIN)/python benchmarks/ingest.py $(ARGS)

fuzz-exactness: .venv/.dev ## The state machine of exact counts, 200,000 steps (about five minutes)
	@$(BIN)/python benchmarks/exactness.py

bench-overload: .venv/.dev ## Ten times as many requests at once as the processor is busy with, for ten minutes
	@$(BIN)/python benchmarks/overload.py $(ARGS)

fuzz: .venv/.dev ## A million hostile inputs to each of what reads bytes of others (hours); ARGS="--targets decode --runs 10000"
	@$(BIN)/python benchmarks/fuzz.py $(ARGS)

chaos: .venv/.dev ## A processor that is killed a thousand times while clients send (about fifteen minutes)
	@$(BIN)/python benchmarks/chaos.py $(ARGS)

clean: ## Remove environments and what runs left behind
	rm -rf .venv .bench .coverage dist build demo-output
