"""Chaos: `kill -9` and every fault over thousands of calls, and three records that agree."""
