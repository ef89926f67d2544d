# Askos. `make up` runs a cloud on this machine, `make test` checks the code; `make help` lists the rest.
#
# Which cloud: DATA=FOLDER ADDRESS=IP PORT=NUMBER, or ASKOS_DATA, ASKOS_ADDRESS, ASKOS_PORT in the environment.
# Only words on make's command line count as DATA, ADDRESS and PORT: a stray PORT in the environment does not.
ifeq ($(origin DATA),command line)
export ASKOS_DATA := $(abspath $(DATA))
endif
ifeq ($(origin ADDRESS),command line)
export ASKOS_ADDRESS := $(ADDRESS)
endif
ifeq ($(origin PORT),command line)
export ASKOS_PORT := $(PORT)
endif

.PHONY: help up down clean test lint unit conformance integration acceptance bench tempest functional fuzz crash format lock dev

help:
	@echo 'make up           install what is missing, start the cloud, run a first container'
	@echo 'make down         stop the cloud and its containers; its data stays'
	@echo 'make clean        down, and remove its data, the virtual environment and caches'
	@echo 'make test         checks and all tests on real containers; installs what they need'
	@echo 'make bench        measure; BENCH_JSON=FILE keeps the figures'
	@echo 'make tempest      zun-tempest-plugin against a cloud of its own; writes docs/tempest.md'
	@echo 'make functional   the functional tests of python-zunclient against a cloud of their own'
	@echo 'make fuzz         schemathesis against a cloud of its own, as a member and as an administrator'
	@echo 'make crash        kill -9 at random, for long; SEED=NUMBER ROUNDS=NUMBER SECONDS_MAX=NUMBER'
	@echo 'make lint | unit | conformance | integration | acceptance | format | lock'

up:
	@scripts/up.sh

down:
	@scripts/down.sh

clean:
	@scripts/clean.sh

dev:
	@scripts/install.sh --dev

test:
	@scripts/test.sh

lint: dev
	@scripts/lint.sh

unit conformance integration acceptance: dev
	@scripts/test.sh $@

bench: dev
	@.venv/bin/python -m bench.run

tempest:
	@scripts/tempest.sh

functional:
	@scripts/functional.sh

fuzz:
	@scripts/fuzz.sh

# make exports what its command line says to the script.
crash: dev
	@scripts/crash.sh

format: dev
	@.venv/bin/ruff check --fix --quiet src tests bench scripts
	@.venv/bin/ruff format src tests bench scripts

lock:
	@scripts/lock.sh --upgrade
