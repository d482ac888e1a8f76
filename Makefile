# Two commands matter: `make demo` and `make test`. Each sets up what it needs.
.DEFAULT_GOAL := help
.PHONY: reference audit fuzz test-api help setup demo up test pytest test-extended test-browser test-typescript lint types imports bench bench-dbos bench-restate bench-celery isolation costs scale batch-scale model deadlines breaker outage chaos clean lock

# Every command here starts many processes of Python, which are to compile our modules once.
export PYTHONDONTWRITEBYTECODE :=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,\
	$(shell command -v $(name) >/dev/null 2>&1 && $(name) -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## Create the environment from the hash-pinned lock

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Ackbridge needs Python 3.11 or newer with the venv module (set PYTHON=...)"; exit 1; }
	@echo "Setting up $(VENV) from requirements.lock (once, about a minute)"
	@rm -f $(STAMP)
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

demo: $(STAMP) ## Run real calls through the whole stack, and print the results
	@$(BIN)/ackbridge demo $(DEMO)

up: $(STAMP) ## Run the same stack in the foreground until Ctrl-C
	@$(BIN)/ackbridge up

test: $(STAMP) ## Lint, check types and import rules, and run all tests
	@$(MAKE) --no-print-directory --jobs=4 lint types imports pytest

# Without restarts: xdist 3.8 may wait for ever for the tests of a process that it has replaced.
pytest: $(STAMP)
	@$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 -m "not extended"

test-extended: $(STAMP) ## Run the tests that `make test` has no time for (ten minutes)
	@$(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 0 -m extended

test-browser: $(STAMP) ## Test the module for pages in a browser, which is fetched where none is installed
	@$(BIN)/python -m pytest tests/browser -m extended

test-typescript: $(STAMP) ## Run the TypeScript of docs/services.md (needs npm's registry once)
	@$(BIN)/python -m pytest -rs tests/integration/client/test_other_clients.py -k same_key

model: $(STAMP) ## Test the protocol model with many random examples (EXAMPLES=5000)
	@ACKBRIDGE_MODEL_EXAMPLES=$(or $(EXAMPLES),5000) $(BIN)/python -m pytest tests/model/test_model.py \
		-o faulthandler_timeout=0

lint: $(STAMP) ## Run the linter, and check the formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP) ## Check the types (strict)
	@$(BIN)/mypy

imports: $(STAMP) ## Check the import rules
	@$(BIN)/lint-imports

bench: $(STAMP) ## Benchmark a call against bare Temporal workflows and DBOS
	@$(BIN)/python -m benchmarks --plot .ackbridge/bench.svg $(BENCH)

bench-dbos: $(STAMP) ## Benchmark a call against DBOS, on PostgreSQL and on SQLite
	@$(BIN)/python -m benchmarks --lanes ours,dbos-postgresql,dbos-postgresql-pinned,dbos-sqlite \
		--json .ackbridge/bench-dbos.json $(BENCH)

bench-restate: $(STAMP) ## Benchmark a call against Restate (needs npm)
	@$(BIN)/python -m benchmarks --lanes ours,restate --json .ackbridge/bench-restate.json $(BENCH)

bench-celery: $(STAMP) ## Benchmark a call against Celery with Redis and PostgreSQL
	@$(BIN)/python -m benchmarks --lanes ours,celery --json .ackbridge/bench-celery.json $(BENCH)

deadlines: $(STAMP) ## Simulate learned deadlines, and draw docs/learned-deadlines.svg
	@$(BIN)/python -m benchmarks.deadlines

isolation: $(STAMP) ## Benchmark a provider beside a slow one, and 10,000 polled calls (ISOLATION=)
	@$(BIN)/python -m benchmarks.isolation $(ISOLATION)

breaker: $(STAMP) ## Simulate the breaker over hours, and draw docs/breaker.svg
	@$(BIN)/python -m benchmarks.breaker

costs: $(STAMP) ## Measure what a call costs, and print the cost model
	@$(BIN)/python -m benchmarks.costs

scale: $(STAMP) ## Measure thousands of calls that wait for their response (WAITING=1000,3000)
	@$(BIN)/python -m benchmarks.scale $(if $(WAITING),--waiting $(WAITING))

batch-scale: $(STAMP) ## Benchmark one batch of many parked calls (CALLS=100000)
	@$(BIN)/python -m benchmarks.batch_scale $(if $(CALLS),--calls $(CALLS))

outage: $(STAMP) ## Simulate an outage of hours with thousands of parked calls (CALLS=, HOURS=)
	@$(BIN)/python -m tests.outage $(if $(CALLS),--calls $(CALLS)) $(if $(HOURS),--hours $(HOURS))

chaos: $(STAMP) ## Kill processes repeatedly during thousands of calls, and reconcile (CALLS=, SECONDS=, SEED=, LANE=)
	@$(BIN)/python -m tests.chaos $(if $(CALLS),--calls $(CALLS)) $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(SEED),--seed $(SEED)) $(if $(LANE),--lane $(LANE))

fuzz: $(STAMP) ## Send random input to parsers, verifiers and a gateway (SECONDS=600, SEED=)
	@$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED))

API_TOOLS := .ackbridge/api-tests

test-api: $(STAMP) $(API_TOOLS)/.installed ## Test the calls API against its description (EXAMPLES=30, SEED=)
	@$(BIN)/python -m tests.openapi --tools $(API_TOOLS) $(if $(EXAMPLES),--examples $(EXAMPLES)) \
		$(if $(SEED),--seed $(SEED))

$(API_TOOLS)/.installed: tools/api-tests.lock
	@$(PYTHON) -m venv --clear $(API_TOOLS)
	@$(API_TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tools/api-tests.lock
	@touch $@

AUDIT := .ackbridge/audit

audit: ## Look for known vulnerabilities of the locked dependencies (needs pypi.org)
	@$(PYTHON) -m venv --clear $(AUDIT)
	@$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tools/pip-audit.lock
	@# Strict: a dependency that could not be looked up is an error, too.
	@$(AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off -r requirements.lock

reference: $(STAMP) ## Renew docs/reference.md and docs/reference/ from the code
	@$(BIN)/python -m ackbridge.cli.reference > docs/.reference.md && mv docs/.reference.md docs/reference.md
	@$(BIN)/ackbridge api --openapi > docs/.openapi.json && mv docs/.openapi.json docs/reference/openapi.json
	@$(BIN)/python -m ackbridge.cli.reference docs/reference/schemas

lock: $(STAMP) ## Renew requirements.lock (needs uv on the PATH)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--upgrade --extra demo --group dev pyproject.toml --output-file requirements.lock
	for name in celery dbos plot restate; do \
		uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate \
			--no-header --upgrade benchmarks/locks/$$name.in \
			--output-file benchmarks/locks/$$name.lock || exit 1; \
	done
	for name in api-tests pip-audit browser node; do \
		uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
			--upgrade tools/$$name.in --output-file tools/$$name.lock || exit 1; \
	done

clean: ## Remove the environment and the local state
	rm -rf $(VENV) .ackbridge .mypy_cache .pytest_cache .ruff_cache .hypothesis
