# make demo   set up and run the main job on a simulated camera
# make test   set up and run the tests;  make lint   ruff and mypy;  make docs   build the site
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint docs clean

.venv/core: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"expected Python 3.11 to 3.13, got {v[0]}.{v[1]}: run make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/dev: .venv/core
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: .venv/core
	$(BIN)/python -m collabteam.simulate camera=demo crops=6000 crops_per_track=2
	$(BIN)/python -m collabteam.train camera=demo round=2 experiment=demo reviewer=oracle
	$(BIN)/python -m collabteam.report camera=demo

test: .venv/dev
	$(BIN)/python -m pytest --numprocesses logical --dist loadfile

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/dev
	$(BIN)/python -m sphinx -W -q -b html docs docs/_build

clean:
	rm -rf .venv docs/_build docs/api .pytest_cache .mypy_cache .ruff_cache
