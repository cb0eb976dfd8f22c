# make book    build the book: _build/html/index.html
# make test    lint, notebooks, strict build, unit tests, browser
# The rest: make help
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
HTML   := _build/html
NOTEBOOKS := $(wildcard book/*.ipynb)

LOOK  := $(shell cat _config.yml $(sort $(wildcard book/assets/*.* book/extension/*.py ntk_lib/page/*.js ntk_lib/page/*.css)) | git hash-object --stdin)
PINS  := $(shell cat requirements.txt pyproject.toml | git hash-object --stdin)
READY := $(VENV)/pins-$(PINS)
PIP   := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The libraries that `make bench` measures against work only with an old JAX.
PEERS := .venv-peers
PEERS_READY := $(PEERS)/pins-$(shell git hash-object benchmarks/peers.txt)
# Those of the part on many points need PyTorch: an environment of its own again.
SOLVERS := .venv-solvers
SOLVERS_READY := $(SOLVERS)/pins-$(shell git hash-object benchmarks/solvers.txt)
# Sphinx does not copy a changed stylesheet or script when no page has changed.
SEEN  := _build/.look-$(LOOK)

# JAX keys a compiled program by its content, so all clones on a machine share them; a program for
# one processor must not run on another.
CPU     := $(shell { uname -sm; grep -m1 -E '^(flags|Features)' /proc/cpuinfo || sysctl -n machdep.cpu.brand_string; } 2>/dev/null | git hash-object --stdin | cut -c1-12)
CACHES := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ntk-interactively
PROGRAMS := $(shell d="$(CACHES)/jax-$(CPU)"; mkdir -p "$$d" 2>/dev/null && test -w "$$d" && echo "$$d" || echo "$(CURDIR)/_build/cache/jax")

# The same numbers on every machine, and one compilation of each program for all steps.
export JAX_PLATFORMS := cpu
export JAX_COMPILATION_CACHE_DIR := $(PROGRAMS)
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS := 0
export MPLBACKEND := agg
export JUPYTER_PREFER_ENV_PATH := 1
export PYTHONDONTWRITEBYTECODE := 1
# Progress bars are for people: the build takes anything on stderr for a warning.
export TQDM_DISABLE := 1

# Files of tests side by side, one a core, at most four; a file stays in one process.
TOGETHER := -n auto --maxprocesses 4 --dist loadfile
# Half the time to compile a program, for tests that compare its results by a tolerance. Of such a
# program each operation is a kernel of its own; XLA loads a kept one with a stack that thousands of
# them overflow (jaxlib 0.10), so none is kept.
QUICKLY := JAX_ENABLE_COMPILATION_CACHE=false XLA_FLAGS="--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"

JUPYTER_BOOK = $(BIN)/jupyter-book build book --config _config.yml --toc $(CURDIR)/_toc.yml --path-output . -W -n --keep-going

.DEFAULT_GOAL := help
# Steps that use all cores one after the other, also under -j.
.NOTPARALLEL:
.PHONY: audit bench book browser card chapter clean clock data environment fresh help links lint nbval notebooks \
  pdf peers-fixture pins serve test test-latest test-lowest tidy unit

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /: /' | sort

# uv takes a quarter of pip's time; where it finds no index, pip may (one of its own configuration).
$(READY):
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 14) else "The book needs Python 3.11, 3.12, 3.13 or 3.14; %s is %d.%d. Try: make PYTHON=python3.12" % (sys.executable, *v))'
	$(PYTHON) -m venv --clear $(VENV)
	@sed -n '/^uv==/,/# via/p' requirements.txt > $(VENV)/uv.txt
	$(PIP) --require-hashes --requirement $(VENV)/uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes --requirement requirements.txt || $(PIP) --require-hashes --requirement requirements.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# what was kept of notebooks goes when something that they run on has changed
fresh: $(READY)
	@find "$(PROGRAMS)" -type f -atime +30 -delete
	@$(BIN)/python -m scripts.fresh

$(SEEN): | $(READY)
	@rm -rf _build/.doctrees _build/html _build/.look-*
	@touch $@

book: $(SEEN) fresh ## build the book, executing what has changed
	@$(JUPYTER_BOOK)
	@echo; echo "The book is built. Open it with a double click, no server and no network needed:"; echo "  $(HTML)/index.html"

# The build takes what nbval has run.
TEST_STEPS := environment lint nbval book unit browser
test: ## everything that decides whether a change may land, and how long each step took
	@mkdir -p _build && rm -f _build/clock.tsv
	@for step in $(TEST_STEPS); do \
	  start=$$(date +%s); $(MAKE) --no-print-directory $$step || exit 1; \
	  printf '%s\t%s\n' $$step $$(($$(date +%s) - start)) >> _build/clock.tsv; \
	done
	@echo; echo "seconds:"; cat _build/clock.tsv

environment: $(READY) ## install what requirements.txt pins, where it is not yet

lint: $(READY) ## style, and notebooks in their stored form
	@$(BIN)/python -m scripts.lint

# the longest files first: LONG in tests/conftest.py
unit: $(READY) ## tests of the library and of the sources
	$(BIN)/python -m pytest $(TOGETHER) --no-loadscope-reorder tests --ignore tests/browser -m optimised
	$(QUICKLY) $(BIN)/python -m pytest $(TOGETHER) --no-loadscope-reorder tests --ignore tests/browser -m "not optimised"

# so that at the end no core waits for another
LONG_FIRST = $(filter $(LONG),$(NOTEBOOKS)) $(filter-out $(LONG),$(NOTEBOOKS))
LONG := book/jacot_2018.ipynb book/limiting_ntk.ipynb
nbval: fresh ## run every notebook and compare each printed number
	NOTEBOOK_CACHE=$(CURDIR)/_build/cache/notebooks $(BIN)/python -m pytest $(TOGETHER) --no-loadscope-reorder --nbval -p no:cacheprovider $(LONG_FIRST)

# what needs the library alone, not the book
LIBRARY_TESTS := tests/engine tests/page tests/test_refusals.py $(patsubst ntk_lib/%.py,tests/test_%.py,$(filter-out ntk_lib/__init__.py,$(wildcard ntk_lib/*.py)))

# In groups (tests/browser/conftest.py), the longest first. A worker waits for its browser now
# and then, so there is one more of them than cores.
browser: $(READY) ## open the built book (make book) in a real browser
	$(BIN)/python -m pytest -n $(shell $(PYTHON) -c 'import os; print(min(os.cpu_count(), 4) + 1)') --dist loadscope --no-loadscope-reorder tests/browser

test-latest: ## make test with the newest versions of everything; says what broke (STEPS="lint book" runs some)
	$(PYTHON) -m venv --clear .venv-latest
	.venv-latest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager --editable ".[book,test]"
	.venv-latest/bin/python scripts/latest.py $(STEPS)

# Matplotlib's older versions warn with the newest pyparsing, which they ask for too. Between hosts
# JAX 0.6.1 itself crashes now and then, in its transport.
test-lowest: ## tests of the library with the oldest versions that pyproject.toml allows
	$(PYTHON) -m venv --clear .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-lowest/bin/uv pip install --quiet --no-config --python .venv-lowest/bin/python --resolution lowest-direct --editable ".[figures,training,test]" "pyparsing>=3.2,<3.3"
	.venv-lowest/bin/python -m pytest $(TOGETHER) $(LIBRARY_TESTS) --deselect tests/engine/test_evaluation.py::test_the_gram_on_two_hosts_is_that_on_one

$(PEERS_READY):
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if v in ((3, 11), (3, 12)) else "The peers need Python 3.11 or 3.12; %s is %d.%d. Try: make bench PYTHON=python3.12" % (sys.executable, *v))'
	$(PYTHON) -m venv --clear $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement benchmarks/peers.txt
	@touch $@

# First what others build with, then the repositories, which are compiled by it.
$(SOLVERS_READY):
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if v in ((3, 11), (3, 12)) else "The solvers need Python 3.11 or 3.12; %s is %d.%d. Try: make bench PYTHON=python3.12" % (sys.executable, *v))'
	$(PYTHON) -m venv --clear $(SOLVERS)
	@grep -v '@ git+' benchmarks/solvers.txt > $(SOLVERS)/wheels.txt
	@grep '@ git+' benchmarks/solvers.txt > $(SOLVERS)/sources.txt
	$(SOLVERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $(SOLVERS)/wheels.txt
	FORCE_ONLY_CPU=1 $(SOLVERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --requirement $(SOLVERS)/sources.txt
	@touch $@

bench: $(READY) $(if $(filter solvers,$(ONLY)),,$(PEERS_READY)) $(if $(filter-out solvers,$(ONLY)),,$(SOLVERS_READY)) ## speed, as ratios measured side by side; rewrites book/speed.md (ONLY=part prints one part, KEEP=yes writes it)
	$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY)) $(if $(KEEP),--keep) $(if $(LARGEST),--largest $(LARGEST))

peers-fixture: $(PEERS_READY) ## remake the kernels of neural-tangents that the tests compare with
	$(PEERS)/bin/python -m benchmarks.fixture

data: $(READY) ## run again what book/data keeps, about two and a half hours (ONLY=part runs one part)
	$(if $(filter motion small-data architectures double-descent,$(ONLY)),,TQDM_DISABLE= $(BIN)/python scripts/jacot_2018.py $(ONLY))
	$(if $(filter-out motion,$(ONLY)),,TQDM_DISABLE= $(BIN)/python scripts/limiting_ntk.py)
	$(if $(filter-out small-data,$(ONLY)),,TQDM_DISABLE= $(BIN)/python -m scripts.small_data)
	$(if $(filter-out architectures,$(ONLY)),,TQDM_DISABLE= $(BIN)/python -m scripts.architectures)
	$(if $(filter-out double-descent,$(ONLY)),,TQDM_DISABLE= $(BIN)/python -m scripts.double_descent)

card: $(READY) ## draw again the picture that a link to the book brings with it
	$(BIN)/python -m scripts.card

pdf: book ## the book as one PDF: _build/ntk-interactively.pdf
	$(BIN)/python -m scripts.pdf

audit: book ## Lighthouse, axe and JupyterLab, page by page (ONLY=pages|lab, PAGES="names")
	$(BIN)/python -m audit $(if $(ONLY),--only $(ONLY)) $(PAGES)

serve: book ## the built book at http://127.0.0.1:8000, for this machine alone
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory $(HTML) 8000

notebooks: $(READY) ## run the notebooks whose code has changed (or NOTEBOOKS="book/lazy.ipynb"), store all in their form
	$(BIN)/python -m scripts.notebooks $(if $(filter command line,$(origin NOTEBOOKS)),--run,--changed) $(NOTEBOOKS)

tidy: $(READY) ## store the notebooks in their form, without running any
	$(BIN)/python -m scripts.notebooks --tidy $(NOTEBOOKS)

chapter: $(READY) ## the bones of a new chapter: make chapter NAME=regression TITLE="A question?"
	$(BIN)/python -m scripts.chapter "$(NAME)" "$(TITLE)"

links: fresh ## ask every address in the text whether it answers
	@$(JUPYTER_BOOK) --builder linkcheck

clock: ## keep what the last make test took for the page on tests (CACHES="empty", say)
	$(BIN)/python -m scripts.clock "$(CACHES)"

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --annotation-style line pyproject.toml
pins: $(READY) ## regenerate requirements.txt, and Binder's part of it, from pyproject.toml
	$(COMPILE) --extra book --extra test --generate-hashes --output-file requirements.txt
	$(COMPILE) --extra lab --constraint requirements.txt --output-file .binder/requirements.txt
	echo "-e ." >> .binder/requirements.txt

clean: ## remove what was built (not the virtual environment)
	rm -rf _build
