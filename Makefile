# The commands of the project. Each one sets up what it needs (a virtual environment, the requirements, the compiled
# package) and is quick the second time: stamp files in the environment say what was installed, and the C++ is built
# again only when it or its build files change. Needs a Python >= 3.11 and a C++17 compiler, nothing else.
#
#   make demo      index a small network, ask it questions, write demo-out/index.html
#   make test      the tests; `make test ARGS="-k search -x"` passes arguments to pytest
#   make bench     the benches at their standard size; `make bench SIZE=small BENCHES=masks ARGS="--only cells"`
#   make lint      ruff, mypy --strict, clang-format
#   make clean     remove everything that was made, the environment too
#
# Another interpreter: `make PYTHON=python3.12 VENV=.venv312 test`. Where pip would fetch a torch with CUDA (Linux, from
# pypi.org): `make PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu" test` keeps it small.

PYTHON ?= python3.11
VENV ?= .venv
PIP_ARGS ?=
ARGS ?=
SIZE ?= standard
BENCHES ?= activations masks

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
VENV_STAMP := $(VENV)/.made
REQUIREMENTS_STAMP := $(VENV)/.installed-requirements
PACKAGE_STAMP := $(VENV)/.installed-package
CPP := $(shell find src/cpp -type f 2>/dev/null)
CPP_FORMATTED := $(filter %.h %.cpp %.inl,$(CPP))

.PHONY: demo test bench lint clean install
.DELETE_ON_ERROR:

demo: install
	$(BIN)/nadb demo $(ARGS)

test: install
	$(BIN)/python -m pytest $(ARGS)

bench: install
	@status=0; for bench in $(BENCHES); do \
	  $(BIN)/python -m bench.$$bench.run --size $(SIZE) $(ARGS) || status=1; \
	done; exit $$status

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .ci bench python tests
	$(BIN)/mypy --strict
	$(BIN)/clang-format --dry-run -Werror $(CPP_FORMATTED)

install: $(PACKAGE_STAMP)

clean:
	rm -rf $(VENV) build dist wheelhouse demo-out bench-data .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find python tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV_STAMP):
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) was not found; name a Python >= 3.11: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $$($(PYTHON) --version) is too old; name a Python >= 3.11: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(REQUIREMENTS_STAMP): $(VENV_STAMP) requirements-dev.txt
	$(PIP) install --quiet $(PIP_ARGS) -r requirements-dev.txt
	@touch $@

$(PACKAGE_STAMP): $(REQUIREMENTS_STAMP) CMakeLists.txt pyproject.toml $(CPP)
	$(PIP) install --quiet --no-build-isolation --no-deps --editable .
	@touch $@
