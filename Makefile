# Coracle's commands. `make demo` boots something real; `make test` checks everything.
.PHONY: build demo test bench clean

build:
	cargo build --release

demo:
	@scripts/demo

test:
	@scripts/test

bench:
	@scripts/bench

clean:
	cargo clean
