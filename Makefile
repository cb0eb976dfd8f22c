# make book    build the book: _build/html/index.html
# make test    lint, unit tests, notebooks, strict build, browser
# The rest: make help
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
HTML   := _build/html
NOTEBOOKS := $(wildcard book/*.ipynb)

# What executed notebooks depend on besides their own code. When it changes, all that was kept from
# earlier executions goes: the name of the file $(FRESH) is this key.
KEY   := $(shell { echo $(VENV); cat $(sort $(shell find ntk_lib -name "*.py" -o -name "*.mplstyle") $(wildcard book/data/*)) requirements.txt pyproject.toml; } | git hash-object --stdin)
LOOK  := $(shell cat _config.yml $(sort $(wildcard book/assets/*.* book/extension/*.py ntk_lib/page/*.js ntk_lib/page/*.css)) | git hash-object --stdin)
FRESH := _build/cache/key-$(KEY)
PINS  := $(shell cat requirements.txt pyproject.toml | git hash-object --stdin)
READY := $(VENV)/pins-$(PINS)
PIP   := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The libraries that `make bench` measures against work only with an old JAX.
PEERS := .venv-peers
PEERS_READY := $(PEERS)/pins-$(shell git hash-object benchmarks/peers.txt)
# Sphinx does not copy a changed stylesheet or script when no page has changed.
SEEN  := _build/.look-$(LOOK)

# The same numbers on every machine, and one compilation of each program for all steps.
export JAX_PLATFORMS := cpu
export JAX_COMPILATION_CACHE_DIR := $(CURDIR)/_build/cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS := 0.2
export MPLBACKEND := agg
export JUPYTER_PREFER_ENV_PATH := 1
export PYTHONDONTWRITEBYTECODE := 1
# Progress bars are for people: the build takes anything on stderr for a warning.
export TQDM_DISABLE := 1

# Files of tests side by side, one a core, at most four; a file stays in one process.
TOGETHER := -n auto --maxprocesses 4 --dist loadfile

JUPYTER_BOOK = $(BIN)/jupyter-book build book --config _config.yml --toc $(CURDIR)/_toc.yml --path-output . -W -n --keep-going

.DEFAULT_GOAL := help
# Steps that use all cores one after the other, also under -j.
.NOTPARALLEL:
.PHONY: audit card data help book pdf test test-latest test-lowest lint unit nbval browser bench peers-fixture serve notebooks pins clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /: /' | sort

$(READY):
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 14) else "The book needs Python 3.11, 3.12, 3.13 or 3.14; %s is %d.%d. Try: make PYTHON=python3.12" % (sys.executable, *v))'
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) --require-hashes --requirement requirements.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(FRESH): | $(READY)
	@rm -rf _build/cache _build/.doctrees
	@mkdir -p $(@D) && touch $@

$(SEEN): | $(FRESH)
	@rm -rf _build/.doctrees _build/html _build/.look-*
	@touch $@

book: $(READY) $(FRESH) $(SEEN) ## build the book, executing what has changed
	@$(JUPYTER_BOOK)
	@echo; echo "The book is built. Open it with a double click, no server and no network needed:"; echo "  $(HTML)/index.html"

# The build takes what nbval has run.
test: lint nbval book unit browser ## everything that decides whether a change may land

lint: $(READY) ## style, and notebooks in their stored form
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python scripts/notebooks.py --check $(NOTEBOOKS)

unit: $(READY) $(FRESH) ## tests of the library and of the sources
	$(BIN)/python -m pytest $(TOGETHER) tests --ignore tests/browser

nbval: $(READY) $(FRESH) ## run every notebook and compare each printed number
	NOTEBOOK_CACHE=$(CURDIR)/_build/cache/notebooks $(BIN)/python -m pytest $(TOGETHER) --nbval -p no:cacheprovider $(NOTEBOOKS)

# what needs the library alone, not the book
LIBRARY_TESTS := tests/engine tests/page tests/test_refusals.py $(wildcard $(patsubst ntk_lib/%.py,tests/test_%.py,$(wildcard ntk_lib/*.py)))

# Its tests are long and in few files: who is done takes over from the others.
browser: $(READY) ## open the built book (make book) in a real browser
	$(BIN)/python -m pytest $(TOGETHER) --dist worksteal tests/browser

test-latest: ## make test with the newest versions of everything; says what broke (STEPS="lint book" runs some)
	$(PYTHON) -m venv --clear .venv-latest
	.venv-latest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager --editable ".[book,test]"
	.venv-latest/bin/python scripts/latest.py $(STEPS)

test-lowest: ## tests of the library with the oldest versions that pyproject.toml allows
	$(PYTHON) -m venv --clear .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct --editable ".[figures,training,test]"
	.venv-lowest/bin/python -m pytest $(TOGETHER) $(LIBRARY_TESTS)

$(PEERS_READY):
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if v in ((3, 11), (3, 12)) else "The peers need Python 3.11 or 3.12; %s is %d.%d. Try: make bench PYTHON=python3.12" % (sys.executable, *v))'
	$(PYTHON) -m venv --clear $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement benchmarks/peers.txt
	@touch $@

bench: $(READY) $(PEERS_READY) ## speed, as ratios measured side by side; rewrites book/speed.md (ONLY=part prints one part)
	$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY))

peers-fixture: $(PEERS_READY) ## remake the kernels of neural-tangents that the tests compare with
	$(PEERS)/bin/python -m benchmarks.fixture

data: $(READY) ## run again what book/data keeps, about two hours (ONLY=part runs one part)
	TQDM_DISABLE= $(BIN)/python scripts/jacot_2018.py $(ONLY)

card: $(READY) ## draw again the picture that a link to the book brings with it
	$(BIN)/python -m scripts.card

pdf: book ## the book as one PDF: _build/ntk-interactively.pdf
	$(BIN)/python -m scripts.pdf

audit: book ## Lighthouse, axe and JupyterLab, page by page (ONLY=pages|lab, PAGES="names")
	$(BIN)/python -m audit $(if $(ONLY),--only $(ONLY)) $(PAGES)

serve: book ## the built book at http://127.0.0.1:8000, for this machine alone
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory $(HTML) 8000

notebooks: $(READY) $(FRESH) ## run the notebooks and store them in their normal form
	$(BIN)/python scripts/notebooks.py $(NOTEBOOKS)

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --annotation-style line pyproject.toml
pins: $(READY) ## regenerate requirements.txt, and Binder's part of it, from pyproject.toml
	$(PIP) uv
	$(COMPILE) --extra book --extra test --generate-hashes --output-file requirements.txt
	$(COMPILE) --extra lab --constraint requirements.txt --output-file .binder/requirements.txt
	echo "-e ." >> .binder/requirements.txt

clean: ## remove what was built (not the virtual environment)
	rm -rf _build
