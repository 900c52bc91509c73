# Two commands do everything on a machine with Python 3.11 or later: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: demo test check bench lock clean

# What runs is installed first; what tests, checks and measures it is added only where that is asked for.
demo: .venv/ready
	@$(BIN)/alpha-panda demo $(ARGS)

# Two workers, each with servers of its own, take the files in turn, the slow ones first; ARGS asks for what it says. A
# worker that crashes ends the run: one in its place runs into the same crash, and then xdist waits for ever.
test: .venv/ready-to-test
	@$(BIN)/python -m pytest $(or $(ARGS),--numprocesses 2 --dist loadfile \
	    --no-loadscope-reorder --max-worker-restart 0)

check: .venv/ready-to-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# Measure: make bench NAME=features (or live, soak, null) OUT=features.json. One thread, so that each contender has one core.
# N=300 gives NAME=null another number of markets, ARGS what else a benchmark takes.
bench: .venv/ready-to-test
	@POLARS_MAX_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.$(or $(NAME),features) \
	    $(if $(N),--n $(N)) $(if $(OUT),--out $(OUT)) $(ARGS)

# Recompute the locks after a change to the dependencies in pyproject.toml: one resolution of everything, then
# requirements.lock (what runs) and, for each extra, what it adds to that.
EXTRAS := test zerodha postgresql notebooks rivals
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --no-annotate --no-strip-extras --no-header pyproject.toml
lock: .venv/ready-to-test
	@cat requirements*.lock > .venv/everything.lock
	$(COMPILE) --all-extras --output-file .venv/everything.lock
	$(COMPILE) --extra build --constraint .venv/everything.lock --output-file requirements.lock
	for extra in $(EXTRAS); do $(COMPILE) --extra $$extra --constraint .venv/everything.lock \
	    $$(sed -n 's/^\([a-z0-9][a-z0-9._-]*\).*==.*/--no-emit-package \1/p' requirements.lock) \
	    --output-file requirements-$$extra.lock || exit; done

# Quix Streams, a rival of the live benchmark, wants an older pydantic than ours: a lock, and a Python, of its own.
benchmarks/quixstreams.lock: .venv/ready-to-test
	echo 'quixstreams==3.*' | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-annotate --no-header - --output-file $@

clean:
	rm -rf .venv .alpha-panda

INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Alpha Panda needs Python 3.11 or later: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv
	$(INSTALL) --no-compile --require-hashes -r requirements.lock
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q -j 0 -x '/(tests|pip|setuptools|databricks)/' .venv/lib # what nobody runs stays source
	@touch $@

.venv/ready-to-test: .venv/ready requirements-test.lock
	$(INSTALL) --require-hashes -r requirements-test.lock
	@touch $@
