# Each target sets up .venv by itself; a second call finds it ready.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/installed

# The programs and the package of a .venv that was moved or copied with its folder are those of the old place.
ifneq ($(filter-out $(CURDIR),$(shell cat $(READY) 2>/dev/null)),)
$(error .venv was made in another folder, $(shell cat $(READY)). Make it anew: rm -rf .venv && make $(MAKECMDGOALS))
endif

# Some machines set it for all. Without bytecode each of the hundreds of processes here would compile torch's sources anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo laptop test quick lint lock

# What was interrupted, by a key or by a shutdown, goes on when it is called again. Snakemake takes seconds to find that
# there is nothing to do; it is not asked where nothing has changed, file or folder: of the workflow since the start of
# the last run that made all (Python writes bytecode into the package's folders meanwhile), of the results since its end.
WORKFLOW := Snakefile config.yaml rules workflow report envs profiles $(READY)
demo laptop: $(READY)
	@changes=$$(find $(WORKFLOW) -newer results/.$@-started -print -quit 2>&1; \
	  find diffusionblocks -name '*.pyc' -o -type f -newer results/.$@-started -print -quit 2>&1; \
	  find results/$@ -newer results/.$@-made -print -quit 2>&1); \
	if [ -z "$$changes" ]; then echo "Nothing has changed since all was made."; else \
	  mkdir -p results; rm -f results/.$@-made; touch results/.$@-started; \
	  $(BIN)/snakemake all --config scale=$@ && touch results/.$@-made; \
	fi
	@echo
	@$(BIN)/python -m diffusionblocks show results/$@

# Two files of tests at a time, each with one thread; those of the cluster first (tests/conftest.py).
test quick: export OMP_NUM_THREADS := 1
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: $(READY)
	$(PYTEST)

# What a developer wants before a commit, in a minute or two: all but the tests marked slow.
quick: $(READY)
	$(PYTEST) -m "not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/lint-imports
	$(BIN)/snakemake --lint

# uv takes seconds for what takes pip half a minute; where it cannot be had, pip does the same. torch always comes by pip,
# whose settings say which build suits the machine; the libraries that a build needs for its GPUs follow with the package.
UV := uv==0.13.9
PIP := $(BIN)/python -m pip
EXTRAS := workflow eval mauve dev
comma := ,
install = $(1) install --quiet --no-compile --no-deps --require-hashes -r requirements.lock && \
  $(1) install --quiet --no-compile -c constraints.txt -e '.[$(subst $() ,$(comma),$(EXTRAS))]'

$(READY): export PIP_DISABLE_PIP_VERSION_CHECK := 1
$(READY): export VIRTUAL_ENV := $(CURDIR)/.venv
$(READY): pyproject.toml constraints.txt requirements.lock
	@$(PYTHON) -c "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "Python 3.11 or newer with venv is needed (Debian: apt install python3-venv; or: make PYTHON=python3.12)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet --no-compile --no-deps -c constraints.txt torch torchvision
	@{ $(PIP) install --quiet $(UV) && $(call install,$(BIN)/uv pip); } 2> /dev/null || \
	  { echo "uv cannot install here, so pip does, which takes half a minute longer."; $(call install,$(PIP)); }
	@echo '$(CURDIR)' > $@

# For after a change of pyproject.toml or constraints.txt: keeps the versions that still fit. Leaves out torch and libraries
# for GPUs, which depend on the build of torch.
lock: $(READY)
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header -c constraints.txt \
	  $(addprefix --extra ,$(EXTRAS)) pyproject.toml -o requirements.lock > /dev/null
	awk '/^[^ ]/ { keep = !/^(torch|torchvision|triton)=|^(cuda|nvidia)-/ } keep' requirements.lock > .venv/lock
	mv .venv/lock requirements.lock
