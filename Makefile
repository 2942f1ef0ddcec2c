# Everything a developer runs. Each target does its own set-up and is quick when there is nothing to do.

PYTHON ?= python3
VENV_PYTHON := .lab/venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup drill test lint sanity unit integration molecule bench screenshot build clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z ]+:.*## / { printf "  make %-38s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Prepare the Python environment, the container engine and the images
	@$(PYTHON) -m tests.lab.setup

drill: setup ## Lose a production host and rebuild the service on a bare one, measured
	@$(VENV_PYTHON) -m tests.lab.drill

test: setup ## Run every test; STEPS=lint,unit chooses some, SCENARIOS=agent,app some of Molecule's
	@$(VENV_PYTHON) -m tests.lab.run_tests $(if $(STEPS),--steps $(STEPS)) $(if $(SCENARIOS),--scenarios $(SCENARIOS))

lint: ## Run the static checks: ruff, mypy, yamllint, ansible-lint
	@$(MAKE) --no-print-directory test STEPS=ruff,mypy,yamllint,ansible-lint

sanity unit integration molecule: ## Run one part of the tests
	@$(MAKE) --no-print-directory test STEPS=$@

bench: setup ## Measure beside other methods; BENCH_CASES, BENCH_SIZES, BENCH_ROUNDS choose, BENCH_DOCS=1 writes docs/
	@$(VENV_PYTHON) -m tests.benchmarks.run

screenshot: setup ## Draw docs/log-report.png: an example of the log report in Chromium
	@$(VENV_PYTHON) -m tests.support.log_report_screenshot

build: setup ## Build the collection artifact into .lab/dist
	@.lab/venv/bin/ansible-galaxy collection build --force --output-path .lab/dist

clean: ## Remove every container, network, image and folder that this project made
	@$(PYTHON) -m tests.lab.clean
