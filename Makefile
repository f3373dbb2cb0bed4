# Short names for the scripts in deploy/, which also run where there is no make.

DOCUMENT ?= fixtures/documents/plain/invoice.docx

.PHONY: help demo test bench image-proof

help: ## What there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: ## Take one document through the whole path: make demo DOCUMENT=my.docx
	@deploy/demo.sh "$(DOCUMENT)"

test: ## Run every check that this machine can, and name those it cannot
	@deploy/test.sh

bench: ## Time one document in our engine and in a cold soffice, side by side: make bench DOCUMENT=my.docx
	@sh deploy/as-root.sh deploy/packages.sh engine build
	cargo bench --locked --bench engine -- "$(abspath $(DOCUMENT))"

image-proof: ## Run the Dockerfile's steps in a bare Debian root, for machines without a container engine (root)
	@sh deploy/prove-image.sh
