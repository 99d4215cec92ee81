# Each target is one visible command. `make demo` and `make test` need nothing but Python >= 3.11 and root or sudo.
.PHONY: demo demo-down test test-full lint

.venv/bin/python: requirements.txt requirements-dev.txt
	./staging/make-venv

demo: .venv/bin/python
	.venv/bin/python -m staging demo

demo-down: .venv/bin/python
	.venv/bin/python -m staging down

lint: .venv/bin/python
	./tests/lint

test: .venv/bin/python
	./tests/run

test-full: .venv/bin/python
	./tests/run --full
