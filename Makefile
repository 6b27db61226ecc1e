# MiniGPT from scratch. `make lab` opens the course, `make test` proves it; `make help` lists the rest.
PYTHON ?= python3
PY := .venv/bin/python
SETUP := $(PYTHON) courseware/setup/environment.py $(if $(LOCKED),--locked)
LAB_ARGS ?=
CHAT_ARGS ?=

.PHONY: help lab test check book chat course chapters real progress certificate code-along reset bench verify setup
help:  ## list these targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 13

lab: data/shakespeare.txt .course/trusted  ## set up, get the data ready and open the course in JupyterLab
	@$(PY) -m jupyterlab --ServerApp.root_dir="$(CURDIR)" notebooks/00_start_here.ipynb $(LAB_ARGS)

test:  ## set up and run every check: linter, types, tests, all notebooks, the website
	@$(SETUP) --dev
	@$(PY) -m courseware.setup.testing

check:  ## set up and run what takes seconds: linter, types, library in step, quick tests
	@$(SETUP) --dev
	@$(PY) -m courseware.setup.testing --quick

book:  ## build the website and open it
	@$(SETUP)
	@$(PY) -m courseware.site open

chat:  ## talk with your assistant on a page in the browser
	@$(SETUP)
	@$(PY) -m courseware.chat $(CHAT_ARGS)

course:  ## make an assistant the whole way, unattended, and report every figure
	@$(SETUP)
	@$(PY) -m courseware.runs.course

chapters:  ## run every chapter from first to last and store the outputs
	@$(SETUP)
	@$(PY) -m courseware run $(wildcard notebooks/[0-9]*.ipynb)

real:  ## also install the published model that chapters 19 and 22 can use (92 MB)
	@$(SETUP) --real

progress:  ## show what you have exported and solved
	@$(PY) -m courseware progress

certificate:  ## prove all your work again, and write a page that anyone can verify
	@$(PY) -m courseware certificate

verify:  ## compare the library with the chapters
	@$(PY) -m courseware verify

code-along:  ## write a chapter's code yourself, from its signatures: make code-along CH=05
	@test -n "$(CH)" || { echo "say which chapter, for example: make code-along CH=05"; exit 2; }
	@$(PY) -m courseware code-along $(CH)

reset:  ## bring back the course's own version of a chapter: make reset CH=05
	@test -n "$(CH)" || { echo "say which chapter, for example: make reset CH=05"; exit 2; }
	@$(PY) -m courseware reset $(CH)

bench:  ## measure against other people's code, side by side
	@$(SETUP) --dev
	@for script in benchmarks/*.py; do echo "== $$script"; $(PY) $$script || exit 1; done

setup:  ## make the environment .venv; with LOCKED=1 only from files whose checksums are known
	@$(SETUP)

# JupyterLab shows the stored figures of a notebook only if it was signed on this computer.
NOTEBOOKS := $(wildcard notebooks/*.ipynb exercises/*.ipynb solutions/*.ipynb)
.course/trusted: $(NOTEBOOKS) | setup
	@$(PY) -m jupyter trust $(NOTEBOOKS) > /dev/null
	@mkdir -p .course && touch $@

data/shakespeare.txt: setup
	@test -f $@ || $(PY) -m courseware.material.corpus
