"""Fuzzing: random input for parsers, verifiers, expressions and the gateway (`make fuzz`)."""
