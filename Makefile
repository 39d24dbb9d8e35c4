# Each target sets up what it needs in .venv, once; requirements/constraints.txt has the pinned versions.
.PHONY: help demo test test-faults test-libero check bench soak mini

help:
	@echo "make demo    a simulated arm acts on instructions; picture and video in out/"
	@echo "make test    every test; make test-faults: only those where cameras, processes or the network fail"
	@echo "make test-libero  tests in the LIBERO simulator, in an environment of its own (2.6 GB)"
	@echo "make check   ruff, mypy and the fast tests"
	@echo "make bench   latency of preprocessing and of every stage, jitter of the command thread, cost of pictures"
	@echo "make mini    the embedded policy from nothing, in out/mini (two hours on two cores)"
	@echo "make soak    ten minutes of the demo's nodes: memory, jitter and lost commands"

demo: .venv/.run
	scripts/run.sh lightvla demo --headless --episodes 3 --out out

test: .venv/.develop
	scripts/run.sh pytest

test-faults: .venv/.develop
	scripts/run.sh pytest test/faults

test-libero: .venv-libero/.libero
	LIGHTVLA_VENV=.venv-libero scripts/run.sh pytest -m "libero or ray" test/sim/test_libero_*.py test/sim/test_closed_loop.py test/ros

check: .venv/.develop
	scripts/run.sh ruff check .
	scripts/run.sh ruff format --check .
	scripts/run.sh mypy
	scripts/run.sh pytest test/unit -m "not slow"

bench: .venv/.develop
	scripts/run.sh python bench/preprocess.py
	scripts/run.sh lightvla bench engines/mini --random none
	scripts/run.sh python bench/jitter.py --seconds 10
	scripts/run.sh python bench/node_overhead.py --seconds 10
	scripts/run.sh python bench/pictures.py

soak: .venv/.run
	scripts/run.sh python bench/soak.py

.venv/.run: EXTRAS = ros,sim
.venv/.develop: EXTRAS = ros,sim,torch,export,train,lerobot,tensorrt-rtx,plot,record,view,dev
.venv/.%: setup.py pyproject.toml requirements/constraints.txt scripts/setup.sh scripts/ros.sh
	scripts/setup.sh .venv $(EXTRAS)
	@touch $@

# LIBERO brings an OpenCV of its own, which must not replace the one that preprocessing is tested with.
.venv-libero/.libero: setup.py requirements/constraints.txt scripts/setup.sh scripts/ros.sh
	scripts/setup.sh .venv-libero ros,libero,ray,dev
	@touch $@

mini: .venv/.develop
	scripts/make_mini.sh out/mini
