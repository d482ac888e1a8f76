"""The conformance kit: whether an integration file holds, whatever its provider does."""
