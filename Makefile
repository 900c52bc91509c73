# Two commands do everything on a machine with Python 3.11 or later: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: demo test check bench lock clean

demo: .venv/ready
	@$(BIN)/alpha-panda demo $(ARGS)

test: .venv/ready
	@$(BIN)/python -m pytest $(ARGS)

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# Measure: make bench NAME=features (or live, null) OUT=features.json. One thread, so that each contender has one core.
# N=300 gives NAME=null another number of markets, ARGS what else a benchmark takes.
bench: .venv/ready
	@POLARS_MAX_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.$(or $(NAME),features) \
	    $(if $(N),--n $(N)) $(if $(OUT),--out $(OUT)) $(ARGS)

# Recompute requirements.lock after a change to the dependencies in pyproject.toml.
lock: .venv/ready
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --extra zerodha --extra postgresql --generate-hashes \
	    --no-emit-index-url --no-annotate --no-strip-extras --no-header pyproject.toml --output-file requirements.lock

clean:
	rm -rf .venv .alpha-panda

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Alpha Panda needs Python 3.11 or later: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
