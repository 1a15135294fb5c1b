# Coracle's commands. `make demo` boots something real; `make test` checks everything.
.PHONY: build demo test bench stress clean

build:
	cargo build --release

demo:
	@scripts/demo

test:
	@scripts/test

bench:
	@scripts/bench

# A hundred power cuts.
stress:
	CORACLE_POWER_CUTS=100 cargo test --release -p coracle-qemu-tests --test power_cut -- --nocapture

clean:
	cargo clean
