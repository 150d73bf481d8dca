# Everything a newcomer needs: `make demo` and `make test`. Needs Linux, root, and Python 3.11 or newer.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_IMAGE := images/base

.PHONY: demo test test-vm soak lint bench clean
.DEFAULT_GOAL := test

# uv where it is there, else venv and pip, which knows dependency groups from 25.1 only: it is told them.
define dev_dependencies
import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"], sep="\n")
endef
export dev_dependencies

$(READY): pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
	    uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
	    VIRTUAL_ENV=$(CURDIR)/$(VENV) uv pip install --quiet --editable . --group dev; \
	else \
	    $(PYTHON) -m venv $(VENV) && \
	    $(BIN)/python -c "$$dev_dependencies" | \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --requirement /dev/stdin; \
	fi
	@touch $@

$(DEMO_IMAGE): | $(READY)
	$(BIN)/pysup image create base --from-host --tools --python

demo: $(READY) $(DEMO_IMAGE)
	@status=0; \
	if [ -n "$$DEMO_SECONDS" ]; then \
	    timeout --foreground --preserve-status --signal=INT $$DEMO_SECONDS $(BIN)/pysup up configs/stack.yaml || status=$$?; \
	else \
	    $(BIN)/pysup up configs/stack.yaml || status=$$?; \
	fi; exit $$status

test: $(READY)
	$(BIN)/python -m pytest

# In a virtual machine with Debian's kernel and cgroup v2 alone; ARGS are pytest's, instead of the tests meant for it.
test-vm: $(READY)
	$(BIN)/python -m tests.vm $(ARGS)

# SECONDS, CONTAINERS and SEED may be given: make soak ARGS="600 100 42"
soak: $(READY)
	$(BIN)/python -m tests.soak $(ARGS)

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m tests.bench $(ARGS)

clean:
	rm -rf $(VENV) $(DEMO_IMAGE) .vm
