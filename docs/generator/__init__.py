"""Makes the documentation site: `python -m docs.generator` (or `make docs`)."""
