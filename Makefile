# Everything here works from a clean clone on a machine that has Go and make.
#
#	make demo         set up, draw phantoms, prepare, train a 4-fold ensemble, predict, small
#	make test         set up, run every test
#	make test-long    also the tests that take minutes each, such as the whole network in float64
#	make test-gpu     the packages that compare a network with its reference, on a CUDA device
#	make test-pure    the packages that need neither libtorch nor a C++ compiler
#	make race         these under Go's race detector
#	make portable     these compile for macOS and Windows too
#	make golden       only the packages that check against reference vectors
#	make bench        Go benchmarks: PKG=./rle BENCH=Decode narrow them down
#	make lint         gofmt, vet, go.mod
#	make arrows       the packages depend on each other as DESIGN says
#	make onnxruntime  ONNX Runtime into build/, by Python's pip, for the tests of predict/onnx
#	make libcgotorch  the native code as a library of its own
#	make thirdparty   another module builds with plain go build
#	make setup        find libtorch or install it; see scripts/libtorch
#	make clean        remove build/ and runs/

SHELL := /bin/sh
GO ?= go
PKG ?= ./...
BENCH ?= .

# Idle threads of OpenMP and OpenBLAS sleep instead of spinning: several test processes
# share the cores. Spinning took 13 to 31 % of the processor time of the tests measured.
export OMP_WAIT_POLICY ?= passive
export OPENBLAS_THREAD_TIMEOUT ?= 4
# The reference vectors and the real films lie beside the repository. A test that
# needs them is skipped where they are not, but not silently where they are.
ifneq ($(wildcard ../shared/golden),)
export HCUNET_SHARED ?= require
endif

ifneq ($(wildcard build/onnxruntime/lib),)
export ONNXRUNTIME ?= $(firstword $(wildcard $(CURDIR)/build/onnxruntime/lib/python3*/site-packages/onnxruntime/capi))
endif

# What make setup found, for the go commands that compile native code.
native := . build/libtorch.env &&
pure := ./rle ./metric ./augment ./feed ./data/... ./report ./predict ./predict/films ./predict/service ./predict/onnxfile ./checkpoint ./network ./internal/atomicfile ./internal/folderlock ./internal/golden ./internal/onnxruntime ./internal/passive ./internal/random ./internal/strict ./internal/usage ./internal/words

.PHONY: onnxruntime setup demo test test-long test-gpu test-pure race portable golden bench lint arrows libcgotorch check-libcgotorch thirdparty clean

setup:
	@scripts/libtorch -install

# Packages are tested two or more at a time, so one thread each is enough; tests that are
# about threads set their number. The longest begin first, so that none runs alone at the
# end. make lint vets everything, so the part of vet that go test runs is left out here.
test test-long: export OMP_NUM_THREADS ?= 1
test test-long: export OPENBLAS_NUM_THREADS ?= 1
order := $(if $(filter ./...,$(PKG)),./ensemble ./unet ./train ./internal/shim)

test: setup
	$(native) $(GO) test -vet=off -timeout 14m $(order) $(PKG)

test-long: setup
	$(native) HCUNET_LONG=1 $(GO) test -vet=off -count=1 -timeout 120m $(order) $(PKG)

test-gpu: setup
	$(native) HCUNET_DEVICE=$${HCUNET_DEVICE:-cuda:0} $(GO) test -count=1 -timeout 30m ./hypercolumn ./loss ./nn ./resnet ./train ./unet

test-pure:
	CGO_ENABLED=0 CC=false CXX=false $(GO) test -timeout 10m $(pure)

# The race detector needs a C compiler, and minutes. Two packages start no goroutine,
# and two tests count the bytes that are allocated, of which the detector adds some.
race:
	$(GO) test -race -short -timeout 20m -skip 'TestFramesAgreeWithTheHeader|TestRepetitions' $(filter-out ./rle ./augment,$(pure))

# vet compiles everything below a package, and the package with its tests.
portable:
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 $(GO) vet $(pure) ./examples/prepare ./examples/phantom ./examples/export
	CGO_ENABLED=0 GOOS=windows GOARCH=amd64 $(GO) vet $(pure) ./examples/prepare ./examples/phantom ./examples/export

golden: setup
	$(native) $(GO) test -count=1 -timeout 14m $$($(GO) list -f '{{range .TestImports}}{{.}} {{end}}{{range .XTestImports}}{{.}} {{end}}: {{.ImportPath}}' ./... | sed -n 's/.*internal\/golden .*: //p')

bench: setup
	$(native) $(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -p 1 -timeout 30m $(PKG)

lint: setup
	@files=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$files" ] || { echo "not gofmt'd: $$files"; exit 1; }
	$(native) $(GO) vet ./...
	$(GO) mod tidy -diff

arrows:
	@scripts/arrows

# The whole path on drawings, small: films and masks, the prepared folder, the
# ensemble, what it finds on films it has not seen. Five to twelve minutes on two free cores.
DEMO := build/demo
DEMO_RUN ?= runs/demo

demo: setup
	rm -rf $(DEMO) $(DEMO_RUN)
	$(GO) run ./examples/phantom -n 96 -test 16 -out $(DEMO)/films
	$(GO) run ./examples/prepare -images $(DEMO)/films/dicom-images-train -rle $(DEMO)/films/train-rle.csv \
		-test $(DEMO)/films/dicom-images-test -size 64 -out $(DEMO)/phantoms-64
	$(native) $(GO) run ./examples/kfold -data $(DEMO)/phantoms-64 -size 64 -batch 8 -accumulate 1 \
		-epochs-frozen 3 -epochs-full 5 -out $(DEMO_RUN)
	$(native) $(GO) run ./examples/predict -model $(DEMO_RUN)/model.safetensors -out $(DEMO_RUN)/found $(DEMO)/films/dicom-images-test
	@echo "The films are phantoms, drawn by a program: these scores say nothing about patients."
	@echo "Look at $(DEMO_RUN)/report.html first."

# The tests of predict/onnx are skipped where no ONNX Runtime is found.
onnxruntime:
	python3 -m venv build/onnxruntime
	build/onnxruntime/bin/pip install --quiet onnxruntime==1.32.0

libcgotorch:
	@scripts/libcgotorch

# A program of the tag cgotorch_so needs libcgotorch.so and libc, nothing else,
# and works with it.
check-libcgotorch: libcgotorch
	$(GO) test -c -tags cgotorch_so -o build/shim_so.test ./internal/shim
	@readelf -d build/shim_so.test | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort >build/needed
	@[ "$$(cat build/needed | tr '\n' ' ')" = "libc.so.6 libcgotorch.so " ] || { echo "needs more than libcgotorch.so and libc:"; cat build/needed; exit 1; }
	cd internal/shim && LD_LIBRARY_PATH=$(CURDIR)/build/cgotorch ../../build/shim_so.test -test.run 'Call|Backward|Scope|RoundTrip'

thirdparty: setup
	@scripts/thirdparty

clean:
	rm -rf build runs
