# The short way to everything, on a fresh Debian 12 machine too: each target first installs what it needs.
ci := $(if $(filter true,$(CI)),ON,OFF)
jobs := $(shell nproc)
export NINJA_STATUS = [%f of %t steps, %e s]$(space)
space := $() $()
sources = $(shell find src apps bench tests -name '*.h' -o -name '*.cc')

help:  ## this list; minutes are estimates, for a first time on two cores
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 24

demo: setup-run build/build.ninja  ## serve the shipped model on two ranks and talk to it (3 minutes)
	@[ -e build/foe ] || echo "Compiling foe, a few minutes on two cores: [done of all steps, seconds]"
	@cmake --build --preset release --target foe
	@tools/demo.sh

chat: setup-run build/build.ninja  ## fetch a small chat model from PyPI, ask it a question, serve it (3 minutes)
	@[ -e build/foe ] || echo "Compiling foe, a few minutes on two cores: [done of all steps, seconds]"
	@cmake --build --preset release --target foe
	@tools/chat.sh

# Without the tests' dependencies; `make test` adds the tests to the same folder and compiles nothing twice.
build/build.ninja:
	cmake --preset release -DFOE_TESTS=OFF -DFOE_BENCH=OFF

build: setup-test  ## compile everything into build/ (9 minutes)
	cmake --preset release -DFOE_CI=$(ci) -DFOE_WERROR=$(ci)
	cmake --build --preset release

test: $(if $(filter ON,$(ci)),setup-dev) build  ## compile everything and run the tests (30 minutes)
	@tools/venv.sh build/venv tools/requirements-test.txt
	@tools/venv.sh build/venv-clients tools/requirements-clients.txt
	@tools/netlab/lab check || echo "The tests on several nodes will be SKIPPED."
	ctest --preset release --parallel $(jobs)

asan: setup-dev  ## the tests under the address and undefined-behaviour sanitizers (20 minutes)
tsan: setup-test  ## tests of threads, collectives, forward pass and engine under the thread sanitizer (10 minutes)
fuzz: setup-dev  ## each fuzzer for ten seconds, in the build of asan (a minute after it)
neon: setup-dev  ## the tests of the kernels for ARM, in an emulator (7 minutes)
asan tsan fuzz neon:
	cmake --preset $@
	cmake --build --preset $@
	ctest --preset $@ --parallel $(jobs)

lto: setup-run  ## link the program as a whole, which finds types that are two under one name (5 minutes)
	cmake --preset lto
	cmake --build --preset lto

format: setup-dev  ## format the sources
	@clang-format-14 -i $(sources)

check-format: setup-dev  ## fail if a source is not formatted
	@clang-format-14 --dry-run --Werror $(sources)

clean:  ## remove all build folders
	rm -rf build build-*

setup-%:
	@tools/setup.sh $*

# The set-up comes first; the build tools run in parallel by themselves.
.NOTPARALLEL:
.PHONY: help demo chat build test asan tsan fuzz neon lto format check-format clean
