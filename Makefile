# `make run` and `make test` do all their own set-up.
VENV   := .venv
PYTHON ?= python3.11
BIN    := $(VENV)/bin
# Tests often wait for what a node does, so the cores take some more workers than one each.
WORKERS ?= $(shell echo $$(( ($$(nproc) * 3 + 1) / 2 )))

.PHONY: run cluster test test-long check bench hostile format clean system-packages proto docs

run: $(VENV)/.run ## Start a node
	@exec $(BIN)/imctl serve $(ARGS)

cluster: $(VENV)/.dev ## Start a whole cluster on this machine: ARGS='--base-port 21000'
	@./scripts/system-packages nginx libnginx-mod-stream redis-server mariadb-server
	@exec $(BIN)/python -m deploy.local $(ARGS)

test: $(VENV)/.dev system-packages tests/js/node_modules/.done ## Run the tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -q $(ARGS)

test-long: $(VENV)/.dev ## Run the tests that take too long for every change: crashes and other faults under load
	$(BIN)/python -m pytest -m long -rP -q $(ARGS)

check: $(VENV)/.dev ## Lint, formatting, types, import directions, assignments, generated code and pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_assignments.py broker bridge server
	$(BIN)/python -m bridge.grpc_api.generate --check
	$(BIN)/python -m bridge.api_docs --check

bench: $(VENV)/.dev ## Compare with other brokers, or with a revision: ARGS='--against REV'
	@./scripts/system-packages mosquitto || true
	$(BIN)/python -m benchmarks $(ARGS)

hostile: $(VENV)/.dev ## Flood a node as shipped, and time what others notice
	$(BIN)/python -m benchmarks.hostile $(ARGS)

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(VENV)/.dev
	$(BIN)/python -m bridge.grpc_api.generate
	$(BIN)/python -m bridge.api_docs

docs: $(VENV)/.dev
	$(BIN)/python -m bridge.api_docs

system-packages:
	@./scripts/system-packages mosquitto mosquitto-clients nodejs npm faketime mariadb-server postgresql redis-server \
		redis-sentinel nginx libnginx-mod-stream

# The virtual environment, with the locked versions: what a node needs, then what tests need too.
$(VENV)/.run: requirements.lock pyproject.toml
	@./scripts/make-venv $(PYTHON) $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.lock
	@touch $@

tests/js/node_modules/.done: tests/js/package-lock.json | system-packages
	cd tests/js && npm ci --silent --no-audit --no-fund
	@touch $@

clean:
	rm -rf $(VENV) tests/js/node_modules .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
