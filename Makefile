# From a bare Debian machine: `make demo` builds an image, `make test` proves the whole.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help demo test thorough lint bench clean images test-images

SETUP := deployments/setup
# Tests of the two engines, of the service, and all others run beside each other; tests/conftest.py says which.
STREAMS := --numprocesses 3 --dist loadscope --no-loadscope-reorder
PYTHON := .venv/bin/python

help: ## What there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

demo: export CAISSON_DEMO_REPO := $(REPO)
demo: export CAISSON_DEMO_REF := $(REF)
demo: ## An image from a git repository, by Caisson on this machine (REPO=URL REF=…: from yours)
	@$(SETUP)/environment.sh
	@$(MAKE) images
	@$(PYTHON) -m deployments.demo

test: ## All tests, on real engines (ARGS=… goes to pytest)
	@$(SETUP)/environment.sh --dev
	@$(MAKE) test-images
	@$(SETUP)/test-tools.sh
	@CAISSON_TEST_ENGINES="$$($(SETUP)/test-engine.sh engines)" \
		CAISSON_TEST_CONTAINERD_ENGINE="$$($(SETUP)/test-engine.sh containerd-engine)" \
		CAISSON_TEST_COMPOSE_ENGINE="$$($(SETUP)/test-engine.sh compose-engine)" \
		CAISSON_TEST_BUILDX="$$($(SETUP)/test-tools.sh --buildx)" \
		CAISSON_TEST_COMPOSE="$$($(SETUP)/test-tools.sh --compose)" $(PYTHON) -m pytest $(STREAMS) $(ARGS)

thorough: ## The property tests with 2,000 examples each, 20 times as many (ARGS=… goes to pytest; no part of `make test`)
	@$(SETUP)/environment.sh --dev
	@HYPOTHESIS_PROFILE=thorough $(PYTHON) -m pytest tests/property --timeout 0 --numprocesses auto --dist loadscope $(ARGS)

lint: ## Format, style, types, layers, shell
	@$(SETUP)/environment.sh --dev
	@$(SETUP)/test-tools.sh --lint
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo
	@shellcheck $(SETUP)/*.sh .ci/run

bench: ## What Caisson adds to a build, and every figure beside its reach (ARGS=--quick: a short one)
	@$(SETUP)/environment.sh --dev
	@$(MAKE) test-images
	@$(SETUP)/test-tools.sh
	@$(PYTHON) -m tests.bench $(ARGS)

clean: ## Stop what this project started, and remove the environment and caches
	@$(SETUP)/clean.sh

# The engine of this host, and the images that builds need on it.
images:
	@$(SETUP)/engine.sh
	@$(SETUP)/base-image.sh
	@$(SETUP)/builder-image.sh

test-images: images
	@$(SETUP)/test-engine.sh start
