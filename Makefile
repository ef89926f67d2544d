# Askos. `make up` and `make test` are the two commands; DATA=, ADDRESS= and PORT= choose another cloud.
SHELL := /bin/bash
ifdef DATA
export ASKOS_DATA := $(DATA)
endif
ifdef ADDRESS
export ASKOS_ADDRESS := $(ADDRESS)
endif
ifdef PORT
export ASKOS_PORT := $(PORT)
endif

.PHONY: help up down clean test lint unit integration acceptance bench format lock
help:          ## What there is
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 20
up:            ## Install what is missing, start a whole cloud, run a first container
	@scripts/up.sh
down:          ## Stop the cloud and its containers; the data stays
	@scripts/down.sh
clean:         ## Stop, and remove the data and the virtual environment
	@scripts/down.sh --clean
test:          ## Checks and all tests, on real containers
	@scripts/test.sh
lint:          ## Checks alone
	@scripts/install.sh --dev && scripts/lint.sh
unit:          ## The tests that take seconds
	@scripts/test.sh tests/unit
integration:   ## One real neighbour each: containerd, the kernel's network, a database
	@scripts/test.sh tests/integration
acceptance:    ## The program as its users run it
	@scripts/test.sh tests/acceptance
bench:         ## Speed, as ratios in one run; BENCH_JSON=FILE keeps the figures
	@scripts/install.sh --dev && .venv/bin/python -m bench.run
format:        ## Format the code
	@.venv/bin/ruff check --fix -q . ; .venv/bin/ruff format -q .
lock:          ## Pin dependencies anew (needs uv)
	@scripts/lock.sh --upgrade
