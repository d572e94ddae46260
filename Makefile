# GNU make and Python 3.11 to 3.13 are all that this file expects; the rest is installed into $(VENV).
# Other interpreter:  make PYTHON=python3.12 VENV=.venv-3.12 test
# Extra arguments:    make test ARGS="-k rulebook -x"      make demo ARGS="--seconds 20"

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# Processes that share the tests, each with servers of its own; most tests wait for one.
JOBS ?= 2

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WHEELS := dist/wheels
# A venv of its own: `make lock` has to work when the lock does not.
LOCK_VENV := build/lock-venv

# What runs inside the image (ARG BASE in Dockerfile), which need not be what runs here: wheels are chosen for that interpreter and
# for the platform tags that glibc 2.36 (Debian 12) accepts. pip takes each tag literally, so the older ones are listed too.
IMAGE_PYTHON ?= 3.11
IMAGE_MACHINE ?= $(subst arm64,aarch64,$(shell uname -m))
IMAGE_PLATFORMS := $(foreach tag,manylinux2014 manylinux_2_17 manylinux_2_28 manylinux_2_34,--platform $(tag)_$(IMAGE_MACHINE))

.DEFAULT_GOAL := help
.PHONY: help demo test test-containers check bench bench-guard chaos chaos-short wheels lock clean

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(INSTALLED) ## a day of calls on a real Kafka and Redis, watched live for a minute
	$(BIN)/ringfence demo $(ARGS)

test: $(INSTALLED) ## every test except those of the containers, on a real Kafka and Redis
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

test-containers: $(INSTALLED) wheels ## the tests that need a container engine, the compose file included
	$(BIN)/python -m pytest -m containers $(ARGS)

check: $(INSTALLED) ## formatter, linter, type checker
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(INSTALLED) ## every measured figure of docs/performance.md, anew; about an hour
	$(BIN)/python -m benchmarks $(ARGS)

# Measured 0.11 to 0.18; a change that doubles the cost of a decision does not pass. Only CPU of the same run is compared, never time.
bench-guard: $(INSTALLED) ## fails if a decision has become much dearer beside the text-book agent's
	$(BIN)/python -m benchmarks contenders --requests 20000 --textbook-requests 4000 --numbers 5000 --repeat 1 --rates 200 --seconds 3 \
	  --no-peer --most-cpu 0.3 --results build/bench-guard $(ARGS)

chaos: $(INSTALLED) ## a storm of 15 minutes: workers, Kafka and Redis fail under load, and every answer is audited
	$(BIN)/python -m chaos $(ARGS)

chaos-short: $(INSTALLED) ## a storm of two minutes, every kind of fault once
	$(BIN)/python -m chaos --minutes 2 --seed 1 $(ARGS)

# The older build's modules would go into the new wheel: setuptools copies into build/lib and never deletes there.
wheels: $(INSTALLED) $(WHEELS)/.requirements ## all that the container image installs, into dist/wheels
	rm -rf build/lib build/bdist.* $(WHEELS)/ringfence-*.whl
	$(BIN)/python -m pip wheel -q --no-deps --no-build-isolation --wheel-dir $(WHEELS) .

$(WHEELS)/.requirements: requirements-image.lock | $(INSTALLED)
	rm -rf $(WHEELS)
	$(BIN)/python -m pip download -q --require-hashes --only-binary=:all: --implementation cp \
	  --python-version $(IMAGE_PYTHON) $(IMAGE_PLATFORMS) --dest $(WHEELS) -r requirements-image.lock
	touch $@

# One resolution for all interpreters and systems; the image's list is the part of it that a worker needs. Versions that are locked
# stay unless ARGS=--upgrade. No index address is written: whoever installs uses their own.
lock: $(LOCK_VENV)/bin/uv ## resolve pyproject.toml again into the two lock files
	$(LOCK_VENV)/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" --extra embedded --extra parquet --extra tracing --group dev $(ARGS) -o requirements.lock pyproject.toml
	$(LOCK_VENV)/bin/uv pip compile -q --python-platform linux --python-version $(IMAGE_PYTHON) --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" -c requirements.lock $(ARGS) -o requirements-image.lock pyproject.toml

$(LOCK_VENV)/bin/uv:
	$(PYTHON) -m venv $(LOCK_VENV)
	$(LOCK_VENV)/bin/python -m pip install -q uv

clean: ## remove what make made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON) here; say which Python to use: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "ringfence runs on Python 3.11, 3.12 and 3.13, and $(PYTHON) is $$($(PYTHON) -V 2>&1)." >&2; \
	  echo "Say which one to use: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Setting up $(VENV) (once; needs the package registry, about a minute)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
