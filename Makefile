# Names the tasks of Lookalike; `make help` lists them. Everything lands in .venv, which `make clean` removes.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The interpreter that .venv is made with. Where none is named and python3 does not fit, another is looked for.
PYTHON ?= python3
PYTHONS := $(PYTHON) $(if $(filter file,$(origin PYTHON)),python3.13 python3.12 python3.11)
SAMPLES := sample_images
PIP := .venv/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
CHROMIUM := command -v chromium chromium-browser google-chrome > /dev/null

# Handed on by the environment, not written into the command, so that spaces, quotes and $ in names mean themselves.
override IMAGES := $(value IMAGES)
export IMAGES
ifdef PORT
export LOOKALIKE_PORT := $(PORT)
endif
ifdef RSC_FILES
export LOOKALIKE_RSC_FILES := $(value RSC_FILES)
endif

.PHONY: help install run test lint bench bench-web bench-learn screenshots clean

help: ## list the tasks
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-11s %s\n", $$1, $$2 }'

install: .venv/core.stamp ## create .venv and install the core

# A collection that a person made is never mixed with the samples: the file SAMPLES in it says that it holds them.
run: .venv/core.stamp ## index and serve: make run [IMAGES="folder/*"] [PORT=8090] [RSC_FILES=folder]; without IMAGES, samples
	@collection=$$(.venv/bin/python -c 'import config; print(config.load_settings().rsc_files)') && \
	mark="$$collection/SAMPLES" && \
	if [[ -n $$IMAGES ]]; then \
		options=(); [[ ! -e $$mark || $$IMAGES == $(SAMPLES)* ]] || options=(--remove $(SAMPLES)); \
		.venv/bin/python img2vec.py --views "$${options[@]}" -- "$${IMAGES/#\~/$$HOME}" && \
		{ [[ $${#options[@]} == 0 ]] || rm "$$mark"; }; \
	elif [[ -e $$mark || ! -e $$collection/catalog.sqlite ]]; then \
		{ [[ -d $(SAMPLES) ]] || .venv/bin/python samples.py $(SAMPLES); } && mkdir -p "$$collection" && touch "$$mark" && \
		.venv/bin/python img2vec.py --views $(SAMPLES); \
	fi
	@exec .venv/bin/python app.py

test: .venv/dev.stamp ## run every test, with Chromium (the system's, or Debian's package when root)
	@$(CHROMIUM) || { [ "$$(id -u)" = 0 ] && apt-get -qq update && apt-get -qq -y install --no-install-recommends chromium; } || \
		echo "There is no Chromium here: the browser tests will be skipped. Install it, for example: apt-get install chromium"
	.venv/bin/python -m pytest -rs

lint: .venv/dev.stamp ## check style, format and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: .venv/dev.stamp ## measure speed and memory
	.venv/bin/python -m benchmarks

bench-web: .venv/dev.stamp ## measure the service under load
	.venv/bin/python -m benchmarks --only web

bench-learn: .venv/dev.stamp ## measure what labels give
	.venv/bin/python -m benchmarks --only learn

screenshots: .venv/dev.stamp ## make the pictures of the README
	.venv/bin/python -m docs.screenshots

clean: ## remove .venv, caches and the sample photographs; collections stay
	rm -rf .venv $(SAMPLES) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip comes last into a new .venv: without it, an earlier attempt was interrupted.
.venv/bin/pip:
	@for python in $(PYTHONS); do \
		if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; \
		then exec "$$python" -m venv --clear .venv; fi; \
	done; \
	echo "Lookalike needs Python 3.11, 3.12 or 3.13, but $(PYTHON) is: $$($(PYTHON) --version 2>&1)." \
		"Name another: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1

# A stamp is newer than the requirement files as long as there is nothing to install.
.venv/core.stamp: requirements.txt requirements/usearch.txt constraints.txt | .venv/bin/pip
	@echo "Installing into .venv; the first time that takes some minutes …"
	@if $(PIP) annoy > .venv/annoy.log 2>&1; then $(PIP) -r requirements.txt; else \
		echo "Annoy could not be compiled, which needs a C++ compiler and the headers of Python (on Debian: apt-get install" \
			"g++ python3-dev, then make clean); pip's words are in .venv/annoy.log. Going on with usearch in its place."; \
		$(PIP) -r <(grep -v '^annoy' requirements.txt) -r requirements/usearch.txt; fi
	@touch $@

.venv/dev.stamp: .venv/core.stamp requirements/dev.txt
	@echo "Installing what tests and checks need …"
	@$(PIP) -r requirements/dev.txt
	@touch $@
