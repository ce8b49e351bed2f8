# make demo   set up and run the main job on a simulated camera
# make test   set up and run the tests;  make lint   ruff and mypy;  make docs   build the site
# make lock   pin every package anew;  make licences   list their licences;  make audit   known vulnerabilities
PYTHON ?= python3
BIN := .venv/bin
LOCK := --quiet --universal --python-version 3.11.5 --generate-hashes --no-annotate --upgrade --custom-compile-command 'make lock'

.PHONY: demo test lint docs lock licences audit clean

.venv/core: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"expected Python 3.11 to 3.13, got {v[0]}.{v[1]}: run make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

.venv/dev: .venv/core requirements-dev.lock
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements-dev.lock
	touch $@

demo: .venv/core
	$(BIN)/python -m collabteam.simulate camera=demo crops=6000 crops_per_track=2
	$(BIN)/python -m collabteam.train camera=demo experiment=demo reviewer=oracle
	$(BIN)/python -m collabteam.label camera=demo
	$(BIN)/python -m collabteam.audit camera=demo reviewer=oracle precision=0.85 expected_error=0.08 || test $$? -eq 1
	$(BIN)/python -m collabteam.report 'camera=glob(*)' format=html to=outputs/report.html

test: .venv/dev
	$(BIN)/python -m pytest --numprocesses logical --dist loadfile --no-loadscope-reorder

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/dev
	$(BIN)/python -m sphinx -W -q -b html docs docs/_build

.venv/supply: .venv/core
	$(PYTHON) -m venv .venv/supply-tools
	.venv/supply-tools/bin/python -m pip install --quiet 'uv>=0.9' 'pip-audit>=2.9' 'pip-licenses>=5'
	touch $@

# The whole set first: boxmot holds pyarrow back, and both files pin one version.
lock: .venv/supply
	.venv/supply-tools/bin/uv pip compile $(LOCK) --extra dev --output-file requirements-dev.lock pyproject.toml
	.venv/supply-tools/bin/uv pip compile $(LOCK) --constraint requirements-dev.lock --output-file requirements.lock pyproject.toml

licences: .venv/dev .venv/supply
	.venv/supply-tools/bin/pip-licenses --python $(BIN)/python --with-system --format json | $(BIN)/python docs/licences.py

audit: .venv/supply
	.venv/supply-tools/bin/pip-audit --strict --require-hashes --disable-pip --requirement requirements-dev.lock

clean:
	rm -rf .venv docs/_build docs/api .pytest_cache .mypy_cache .ruff_cache
