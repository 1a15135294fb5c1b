# Coracle's commands. `make demo` boots something real; `make test` checks everything.
.PHONY: build demo test bench reproduce stress fuzz clean

build:
	cargo build --release

demo:
	@scripts/demo

test:
	@scripts/test

bench:
	@scripts/bench

# The same programs from two clean clones, the same disk under other circumstances.
reproduce:
	@scripts/reproduce

# A hundred power cuts, and a thousand lives of workloads.
stress:
	CORACLE_POWER_CUTS=100 cargo test --release -p coracle-qemu-tests --test power_cut -- --nocapture
	CORACLE_RESTARTS=1000 cargo test --release -p coracle-qemu-tests --test restarts -- --nocapture

# Each parser of outside bytes for a minute.
fuzz:
	@scripts/fuzz

clean:
	cargo clean
