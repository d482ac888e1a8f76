"""The simulated provider, for the demo, our tests and yours."""
