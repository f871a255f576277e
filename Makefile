# Every target creates the environment .venv if needed, and updates it when pyproject.toml or constraints.txt change.
#   make serve          start the API, a worker and a database: http://127.0.0.1:8000   (PORT=8080 make serve)
#   make test           run all tests; install Chromium if there is none   (ARGS="tests/jobs -k store" selects tests)
#   make abuse          replay attacks against a real server on this machine, and print what they cost it
#   make faults         run each fault test five times, and all faults at once: about ten minutes   (RUNS=1 make faults)
#   make interop      run AIPerf, LiteLLM and the openai client against a real server   (ARGS=litellm selects one)
#   make check          run the linter, the type checker and the import contracts
#   make docs           build the documentation site in build/site
#   make docker-build   build the images of docker-compose.yml, with Docker
#   make docker-test    start the stack and its profiles under other names, test them, remove them
#   make chaos          the same while containers are killed, frozen, disconnected and restarted under load
#   make lock           write docker/requirements/ again: the packages of the images with their hashes
#   make sbom           write build/sbom.cdx.json, the bill of materials of the environment (CycloneDX)
#   make audit          list known vulnerabilities of the locked packages (pip-audit)
#   make clean          remove the environment and all caches; data/ and build/ stay

PORT ?=
ARGS ?=
RUNS ?= 5
# The first of these interpreters that is Python 3.11, 3.12 or 3.13; `make PYTHON=python3.12` chooses another.
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	$$name -c '$(SUPPORTED)' 2>/dev/null && echo $$name && exit; done; echo python3)

BIN := .venv/bin
STAMP := .venv/up-to-date

.PHONY: serve test chromium abuse faults interop check docs docker-build docker-test chaos lock sbom audit clean
.DELETE_ON_ERROR:

serve: $(STAMP)
	@exec $(BIN)/framedit serve $(if $(PORT),--port $(PORT))

# Two processes for each core, as many tests wait for others; with one thread each, as more of them slow all down.
PROCESSES ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN); echo $$(( cores > 4 ? 8 : 2 * cores )))
# For all tests, and where ARGS names those of the page.
CHROMIUM_FOR := $(if $(ARGS),$(filter tests/browser%,$(subst --ignore tests/browser,,$(ARGS))),all)

# Compiled modules are kept, whatever the environment says: hundreds of processes import them.
test: $(STAMP) $(if $(CHROMIUM_FOR),chromium)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile \
		--no-loadscope-reorder --durations 10 $(ARGS)

chromium: $(STAMP)
	@$(BIN)/python -m tests.browser.chromium

abuse: $(STAMP)
	$(BIN)/python -m tests.abuse

faults: $(STAMP)
	$(BIN)/python -m tests.faults $(RUNS)

interop: $(STAMP)
	$(BIN)/python -m tests.interop $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Without a network: theme and fonts come from the package or the reader's system.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

docker-build:
	docker compose build setup worker

docker-test: $(STAMP)
	$(BIN)/python -m pytest docker/stack_tests --ignore docker/stack_tests/test_chaos.py $(ARGS)

chaos: $(STAMP)
	$(BIN)/python -m pytest docker/stack_tests/test_chaos.py -s $(ARGS)

# Only pip-tools and PyPI are needed, and some minutes: it reads the hashes of all builds of every package.
LOCK := build/lock/bin/pip-compile --quiet --strip-extras --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links -c constraints.txt

lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --disable-pip-version-check --quiet pip-tools
	$(LOCK) --allow-unsafe -o docker/requirements/build.txt docker/requirements/build.in
	$(LOCK) --extra s3 --extra tracing -o docker/requirements/server.txt pyproject.toml docker/requirements/runtime.in
	$(LOCK) --extra worker --extra s3 --extra c2pa --extra tracing --unsafe-package torch \
		-o docker/requirements/worker.txt pyproject.toml docker/requirements/runtime.in
	sed -i '/^# WARNING/,$$d' docker/requirements/worker.txt  # it says that torch is left out, which is intended

sbom: $(STAMP)
	$(PYTHON) -m venv build/sbom
	build/sbom/bin/pip install --disable-pip-version-check --quiet --require-hashes --no-deps \
		-r docker/requirements/build.txt
	build/sbom/bin/cyclonedx-py environment $(BIN)/python -o build/sbom.cdx.json

audit: $(STAMP)
	$(BIN)/python -m venv build/audit
	build/audit/bin/python -m pip install --disable-pip-version-check --quiet pip-audit
	build/audit/bin/pip-audit -r constraints.txt --no-deps --disable-pip

clean:
	rm -rf .venv *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch is by far the largest package: installed first, it need not be repeated when a later download fails. The package
# index of pip's configuration decides whether it is a build for CPUs or for CUDA.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c '$(SUPPORTED)' 2>/dev/null || \
		{ echo "make: Python 3.11, 3.12 or 3.13 is needed, and '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo missing):" \
		"choose one with 'make PYTHON=/path/to/python3.11'" >&2; exit 1; }
	@test -x $(BIN)/python && $(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet torch -c constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e '.[worker,embedded,s3,c2pa,tracing,dev]' -c constraints.txt
	@touch $(STAMP)
