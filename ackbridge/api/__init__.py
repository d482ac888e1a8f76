"""The calls API: calls, providers and what needs an operator, over HTTP."""
