"""The calls API against its description: schemathesis, and a client generated from it."""
