"""The module for pages, in a real browser: `make test-browser`."""
