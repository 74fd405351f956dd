# Every target sets up what it needs below .venv and reuses it; data is fetched there too.
# make demo        serve the model that ships, and sample digits into demo/, in seconds
# make demo-train  train one for some minutes, export it, and go on likewise
# make train-release   the models that ship, from seed to file, into serving/released
# make test        lint, types, protos and all tests
PYTHON ?= python3
export INFOSINK_CACHE ?= $(CURDIR)/.venv/data
VENV := .venv
BIN := $(VENV)/bin
BUF := $(VENV)/buf/node_modules/.bin/buf
PACKAGES := infosink.training infosink.export infosink.serving infosink.clients

.PHONY: demo demo-train train-release test lint types protos protos-check pytest test-slow test-gpu build clean

demo: $(VENV)/installed
	$(BIN)/python examples/demo.py demo

demo-train: $(VENV)/installed
	$(BIN)/python examples/demo_train.py demo

# Stopped, it goes on where it was. The runs stay in release/, with what they were measured to be.
train-release: $(VENV)/installed release/mnist/gen.onnx release/gaussians/gen.onnx
	for model in mnist gaussians; do for part in gen q; do \
		cp release/$$model/$$part.onnx serving/released/$$model-$$part.onnx; done; done

release/mnist/gen.onnx release/gaussians/gen.onnx: release/%/gen.onnx: | $(VENV)/installed
	if [ -e release/$*/config.json ]; then $(BIN)/infosink-train $* --output release/$* --resume; \
		else $(BIN)/infosink-train $* --output release/$* $(RELEASE_$*); fi
	$(BIN)/infosink-evaluate release/$*
	$(BIN)/infosink-export release/$* --weights $(WEIGHTS_$*) --licence Apache-2.0 --card-notes docs/model-cards/$*.md

RELEASE_mnist := --preset best --seed 2 --hold-out 10000
RELEASE_gaussians := --preset quick --seed 0 --annealing 2500 --averaging 0.99
WEIGHTS_mnist := int8
WEIGHTS_gaussians := float16

test: lint types protos-check pytest

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy does not follow the editable install's folder mapping, so it is given the mapping as links.
types: $(VENV)/installed
	mkdir -p $(VENV)/typed/infosink
	for generated in v1 oip; do ln -sfn $(CURDIR)/protos/infosink/$$generated $(VENV)/typed/infosink/$$generated; done
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

# A file to a core, each on one thread: threads that share a core wait for one another.
pytest: $(VENV)/installed $(VENV)/protobuf6/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --dist loadfile

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
