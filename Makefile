# The first target that is made builds its environment: in .venv-slim and .venv-server for the demos, which need no
# compiler and no torch, and in .venv for the rest.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SLIM ?= .venv-slim
SLIM_INSTALLED := $(SLIM)/.installed
SERVER ?= .venv-server
SERVER_INSTALLED := $(SERVER)/.installed
# pytest arguments, such as T="-k json -x"
T ?=

.PHONY: help install demo demo-server container test test-all test-encoders coverage lint types wheel slim bench docs clean
help:
	@echo "make demo       enroll and recognize the sample voices"
	@echo "make demo-server  serve the sample voices: the console, and a key for the HTTP interface"
	@echo "                (PORT=8001 if 8000 is taken)"
	@echo "make container  run what the Dockerfile says without docker, and check it"
	@echo "make test       run the quick tests: a quarter of an hour on two cores"
	@echo "make test-all   run all tests"
	@echo "make test-encoders  run tests with tiny speaker models in place of the default encoder"
	@echo "make coverage   run all tests, and fail where less is covered than pyproject.toml asks"
	@echo "make lint       formatter, linter and strict types"
	@echo "make wheel      build the wheel, and use it alone, outside the checkout"
	@echo "make slim       build the slim environment, and check it"
	@echo "make bench      run the benchmarks (DATA=folder of recordings, see tools/populations.py;"
	@echo "                LARGE=1 to a million voiceprints)"
	@echo "make docs       write docs/cli.md from the commands' own help, and build the pages in site/"
	@echo "make clean      remove the environments and what was built"

install: $(INSTALLED)

# constraints.txt pins the versions that the tests ran with. A C compiler is needed once: webrtcvad has no wheels.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,docs]"
	@touch $@

$(SLIM_INSTALLED): pyproject.toml constraints.txt requirements-slim.txt
	test -x $(SLIM)/bin/python || $(PYTHON) -m venv $(SLIM)
	$(SLIM)/bin/python -m pip install --quiet --only-binary :all: --requirement requirements-slim.txt
	$(SLIM)/bin/python -m pip install --quiet --constraint constraints.txt --no-deps resemblyzer --editable .
	@touch $@

$(SERVER_INSTALLED): pyproject.toml constraints.txt requirements-slim.txt requirements-server.txt
	test -x $(SERVER)/bin/python || $(PYTHON) -m venv $(SERVER)
	$(SERVER)/bin/python -m pip install --quiet --only-binary :all: --requirement requirements-server.txt
	$(SERVER)/bin/python -m pip install --quiet --constraint constraints.txt --no-deps resemblyzer --editable .
	@touch $@

demo: $(SLIM_INSTALLED)
	$(SLIM)/bin/voiceprint demo

demo-server: $(SERVER_INSTALLED)
	$(SERVER)/bin/voiceprint demo-server $(if $(PORT),--port $(PORT))

container: $(INSTALLED)
	$(BIN)/python tests/container.py

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 -m "not slow" $(T)

# Three on two cores, as the tests wait for servers and killed processes a quarter of their time.
test-all: $(INSTALLED)
	$(BIN)/python -m pytest -n 3 $(T)

# The modules whose answers depend on the encoder of the settings, without the values of the default one.
OTHER_ENCODER_TESTS := $(addprefix tests/,evaluation test_agreement.py test_channels.py test_decisions.py \
	test_diarization.py test_end_to_end.py test_enroll_many.py test_identify.py test_recognizer.py test_streaming.py \
	test_streaming_session.py)

test-encoders: $(INSTALLED)
	$(BIN)/python -m pytest -n 3 -m "not slow" --encoder tiny-192 $(OTHER_ENCODER_TESTS) $(T)
	$(BIN)/python -m pytest -n 2 --encoder tiny-512 tests/test_end_to_end.py $(T)

coverage: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --cov --cov-report=term:skip-covered $(T)

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(MAKE) types

types: $(INSTALLED)
	$(BIN)/mypy -p voiceprint -p opusagent

wheel: $(INSTALLED)
	$(BIN)/python -m build --quiet --wheel --no-isolation --outdir dist .
	$(BIN)/python tests/wheel_alone.py dist

slim: $(SLIM_INSTALLED)
	$(SLIM)/bin/python tests/slim_install.py

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.run_all $(if $(DATA),--data $(DATA)) $(if $(LARGE),--large)

docs: $(INSTALLED)
	$(BIN)/python -m typer voiceprint.cli.app utils docs --name voiceprint --output docs/cli.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

clean:
	rm -rf $(VENV) $(SLIM) $(SERVER) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
