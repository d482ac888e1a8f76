"""What a call costs: ours, the engine's floor, and the textbook version, in one interleaved run."""
