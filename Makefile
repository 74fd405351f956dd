# Every target sets up what it needs below .venv and reuses it; data is fetched there too.
# make demo        serve the model that ships, and sample digits into demo/, in seconds
# make demo-train  train one for some minutes, export it, and go on likewise
# make test        lint, types, protos and all tests
PYTHON ?= python3
export INFOSINK_CACHE ?= $(CURDIR)/.venv/data
VENV := .venv
BIN := $(VENV)/bin
BUF := $(VENV)/buf/node_modules/.bin/buf
PACKAGES := infosink.training infosink.export infosink.serving infosink.clients

.PHONY: demo demo-train test lint types protos protos-check pytest test-slow test-gpu build clean

demo: $(VENV)/installed
	$(BIN)/python examples/demo.py demo

demo-train: $(VENV)/installed
	$(BIN)/python examples/demo_train.py demo

test: lint types protos-check pytest

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy does not follow the editable install's folder mapping, so it is given the mapping as links.
types: $(VENV)/installed
	mkdir -p $(VENV)/typed/infosink
	ln -sfn $(CURDIR)/protos/infosink/v1 $(VENV)/typed/infosink/v1
	for package in training export serving clients; do ln -sfn $(CURDIR)/$$package $(VENV)/typed/infosink/$$package; done
	MYPYPATH=$(VENV)/typed $(BIN)/mypy $(addprefix -p ,$(PACKAGES))

# The committed modules are what the .proto files generate; the contract keeps its style, and keeps its promises
# to clients built against the baseline.
protos-check: $(VENV)/protobuf6/installed $(BUF)
	cd protos && $(CURDIR)/$(BUF) lint
	cd protos && $(CURDIR)/$(BUF) breaking --against baseline.binpb
	rm -rf $(VENV)/generated && mkdir $(VENV)/generated
	protos/generate.sh $(CURDIR)/$(VENV)/protobuf6/bin/python $(CURDIR)/$(VENV)/generated
	cd $(VENV)/generated && find . -type f | while read -r file; do diff -u "$(CURDIR)/protos/$$file" "$$file"; done

protos: $(VENV)/protobuf6/installed
	protos/generate.sh $(CURDIR)/$(VENV)/protobuf6/bin/python

pytest: $(VENV)/installed $(VENV)/protobuf6/installed
	$(BIN)/pytest -q

test-slow: $(VENV)/installed $(VENV)/protobuf6/installed
	$(BIN)/pytest -q -m slow

test-gpu: $(VENV)/installed
	$(BIN)/pytest -q -m gpu

build: $(VENV)/installed
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

clean:
	rm -rf $(VENV) build dist demo

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# The oldest protobuf major that clients may have, and the compiler, which needs it.
$(VENV)/protobuf6/installed: $(VENV)/installed protos/requirements.txt
	$(PYTHON) -m venv $(VENV)/protobuf6
	$(VENV)/protobuf6/bin/pip install --quiet --disable-pip-version-check -r protos/requirements.txt --editable .
	touch $@

$(BUF):
	npm install --silent --no-audit --no-fund --prefix $(VENV)/buf @bufbuild/buf@1.75.0
