"""The same four steps in other durable-execution systems, each as a process of its own.

These modules run in their peer's own environment: they import nothing of Ackbridge.
"""
