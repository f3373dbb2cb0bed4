# Short names for the scripts in deploy/, which also run where there is no make.

DOCUMENT ?= fixtures/documents/plain/invoice.docx

.PHONY: help demo local test bench burst sizing simulate image-proof

help: ## What there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: ## Take one document through the whole path: make demo DOCUMENT=my.docx
	@deploy/demo.sh "$(DOCUMENT)"

local: ## Run it all on this machine, with a web page on port 8080
	@deploy/local.sh

test: ## Run every check that this machine can, and name those it cannot
	@deploy/test.sh

bench: ## Time documents in our engine, beside its floor, a warm unoserver and a cold soffice: make bench DOCUMENTS="my.docx"
	@sh deploy/as-root.sh deploy/packages.sh engine build bench
	@test -x target/unoserver/bin/unoserver || { /usr/bin/python3 -m venv --system-site-packages target/unoserver && target/unoserver/bin/pip install --quiet 'unoserver>=3,<4'; } || echo 'bench: no unoserver'
	PLATEN_BENCH_PYTHON="$(CURDIR)/target/unoserver/bin/python" cargo bench --locked --features floor --bench engine -- $(abspath $(DOCUMENTS))

burst: ## Time jobs, and refusals, with ten times as many senders as slots
	cargo bench --locked --bench burst

sizing: ## Measure processor time and memory by kind of document: make sizing DOCUMENTS="my.docx my-directory"
	cargo bench --locked --bench documents -- $(abspath $(DOCUMENTS))

simulate: ## Check the model of docs/operations.md against a simulation; no network, no LibreOffice
	@mkdir -p target && rustc --edition 2024 -O -o target/simulation benches/simulation.rs && target/simulation

image-proof: ## Run the Dockerfile's steps in a bare Debian root, measure and try the image, for machines without a container engine (root)
	@sh deploy/prove-image.sh
