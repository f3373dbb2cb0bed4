# `make demo` and `make test` are the README's two commands: from a bare Debian 12 or 13 with Rust to a converted
# document, and to a summary of every check. deploy/checks.sh has the checks themselves, .ci/run runs the same.

CARGO ?= cargo
DOCUMENT ?= fixtures/documents/plain/invoice.docx
OUT ?= out

.PHONY: help demo test bench image-proof packages packages-test

help: ## What there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: packages ## Build, and take one document through the whole path: make demo DOCUMENT=my.docx OUT=out
	$(CARGO) run --locked -- demo "$(DOCUMENT)" --out "$(OUT)"

test: packages-test ## Run every check that this machine can, and name those it cannot
	@CARGO="$(CARGO)" sh deploy/checks.sh

bench: packages ## Time one document in our engine and in a cold soffice, side by side: make bench DOCUMENT=my.docx
	$(CARGO) bench --locked --bench engine -- "$(abspath $(DOCUMENT))"

image-proof: ## Run the Dockerfile's steps in a bare Debian root, for machines without a container engine (root)
	sh deploy/prove-image.sh

packages:
	@sh deploy/as-root.sh deploy/packages.sh engine build

packages-test:
	@sh deploy/as-root.sh deploy/packages.sh engine build test
