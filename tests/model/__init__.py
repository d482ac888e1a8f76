"""A model of one call: the protocol in a simulated world, fed with whatever may happen."""
