# One command per target. `make demo` and `make test` install what they need first.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test check native native-test stores-test wire-fuzz faults bench bench-worker bench-codec bench-objects \
	bench-scale bench-latency bench-sql bench-gateway bench-capture bench-dlq bench-report install lock types clean

demo: $(INSTALLED)
	@$(BIN)/python -m demo $(if $(KEEP),--keep)

test: check native
	@$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

check: $(INSTALLED)
	@$(BIN)/python tests/check.py

native: $(INSTALLED)
	@$(BIN)/python deploy/native.py

native-test: native
	@cd native && cargo fmt --check && cargo clippy --quiet --locked --offline
	@$(BIN)/python deploy/native.py checked
	@PYTHONPATH=native/target/checked HEDDLE_FUZZ=1000000 $(BIN)/python -m pytest -q tests/unit/test_wire_native.py --timeout 1800

stores-test: $(INSTALLED)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r deploy/stores.lock
	@$(BIN)/python -m pytest -q tests/unit/test_secrets_vault.py tests/unit/test_secrets_aws.py tests/integration/test_secrets_leases.py

wire-fuzz: $(INSTALLED)
	@$(BIN)/python tests/unit/wire_fuzz.py $(if $(SEED),--seed $(SEED)) $(if $(START),--start $(START))
	@HEDDLE_WIRE=full $(BIN)/python -m pytest -q tests/unit/test_wire_agreement.py --timeout 3600

faults: $(INSTALLED)
	@HEDDLE_FAULTS=full $(BIN)/python -m pytest -q tests/faults --timeout 3600

bench: $(INSTALLED)
	@$(BIN)/python -m benchmarks

bench-worker: $(INSTALLED)
	@$(BIN)/python -m benchmarks.worker

bench-codec: $(INSTALLED)
	@$(BIN)/python -m benchmarks.codec

bench-objects: $(INSTALLED)
	@$(BIN)/python -m benchmarks.objects

bench-scale: $(INSTALLED)
	@$(BIN)/python -m benchmarks.scale

bench-latency: $(INSTALLED)
	@$(BIN)/python -m benchmarks.latency

bench-sql: $(INSTALLED)
	@$(BIN)/python -m benchmarks.sql

bench-gateway: $(INSTALLED)
	@$(BIN)/python -m benchmarks.gateway

bench-capture: $(INSTALLED)
	@$(BIN)/python -m benchmarks.capture

bench-dlq: $(INSTALLED)
	@$(BIN)/python -m benchmarks.dead_letters

bench-report: $(INSTALLED)
	@$(BIN)/python -m benchmarks.report

types: $(INSTALLED)
	@$(BIN)/heddle types

install: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml deploy/install.py
	@command -v $(PYTHON) >/dev/null || { echo "heddle: no $(PYTHON) on this machine; install Python 3.11 or newer, or say make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) deploy/install.py

lock: $(INSTALLED)
	@$(BIN)/python deploy/lock.py

clean:
	@rm -rf .venv .mypy_cache .ruff_cache native/target
