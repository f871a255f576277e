# The environment is .venv, made from nothing and brought up to date when pyproject.toml or constraints.txt change.
#   make serve              everything on this machine: http://127.0.0.1:8000   (PORT=8080 make serve: another port)
#   make test               the tests             (ARGS="-k video" chooses among them)
#   make browser            Debian's Chromium, which the tests of the page drive, where there is none
#   make faults             the long form of the fault tests: RUNS=5 of each, and a storm of all; some ten minutes
#   make check              linter, types, direction of imports
#   make docker-build       the images of docker-compose.yml, with Docker
#   make docker-test        start that stack and its profiles under other names, test them, remove them
#   make chaos              the same, with containers killed, frozen, cut off and restarted under load
#   make audit              known weaknesses of the locked packages, as pip-audit's sources tell them
#   make clean              remove what was made here, the environment and all caches; data/ and build/ stay

PORT ?=
ARGS ?=
RUNS ?= 5
# Python 3.11, 3.12 or 3.13: the first of these names that is one, unless `make PYTHON=python3.12` chooses.
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	$$name -c '$(SUPPORTED)' 2>/dev/null && echo $$name && exit; done; echo python3)

BIN := .venv/bin
STAMP := .venv/up-to-date

.PHONY: serve test browser check clean faults
.DELETE_ON_ERROR:

serve: $(STAMP)
	@exec $(BIN)/framedit serve $(if $(PORT),--port $(PORT))

test: $(STAMP)
	$(BIN)/python -m pytest $(ARGS)

browser:
	@command -v $${CHROMIUM:-chromium} >/dev/null || { \
		as_root=$$(test $$(id -u) = 0 || echo sudo); \
		$$as_root apt-get update -qq && \
		$$as_root apt-get install -qq --yes --no-install-recommends chromium >/dev/null; }

faults: $(STAMP)
	$(BIN)/python -m tests.faults $(RUNS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docker-build:
	docker compose build setup worker

docker-test: $(STAMP)
	$(BIN)/python -m pytest docker/test --ignore docker/test/test_chaos.py $(ARGS)

chaos: $(STAMP)
	$(BIN)/python -m pytest docker/test/test_chaos.py -s $(ARGS)

audit: $(STAMP)
	$(BIN)/python -m venv build/audit
	build/audit/bin/python -m pip install --disable-pip-version-check --quiet pip-audit
	build/audit/bin/pip-audit -r constraints.txt --no-deps --disable-pip

clean:
	rm -rf .venv *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first: it is by far the largest, and the rest is then quick to repeat when a download breaks off. The index
# that pip is configured with decides whether it is a build for CPUs or for CUDA.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c '$(SUPPORTED)' 2>/dev/null || \
		{ echo "make: Python 3.11, 3.12 or 3.13 is needed, and '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo missing):" \
		"choose one with 'make PYTHON=/path/to/python3.11'" >&2; exit 1; }
	@test -x $(BIN)/python && $(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet torch -c constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e '.[worker,embedded,s3,tracing,dev]' -c constraints.txt
	@touch $(STAMP)
