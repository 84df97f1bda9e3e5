# Each target sets up .venv by itself; a second call finds it ready.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/installed
REPORT := results/demo/report.html

# The programs and the package of a .venv that was moved or copied with its folder are those of the old place.
ifneq ($(filter-out $(CURDIR),$(shell cat $(READY) 2>/dev/null)),)
$(error .venv was made in another folder, $(shell cat $(READY)). Make it anew: rm -rf .venv && make $(MAKECMDGOALS))
endif

.PHONY: demo test quick lint

demo: $(READY)
	$(BIN)/snakemake all --config scale=demo --quiet rules
	@$(BIN)/python -m diffusionblocks show results/demo/tables/*.csv
	@echo
	@echo "Report: $(CURDIR)/$(REPORT)"

test: $(READY)
	$(BIN)/python -m pytest

# What a developer wants before a commit, in a minute or two: all but the tests marked slow.
quick: $(READY)
	$(BIN)/python -m pytest -m "not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/lint-imports
	$(BIN)/snakemake --lint

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "Python 3.11 or newer with venv is needed (Debian: apt install python3-venv; or: make PYTHON=python3.12)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[workflow,eval,mauve,dev]'
	@echo '$(CURDIR)' > $@
