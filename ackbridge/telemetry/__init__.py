"""Logs, traces and metrics of our processes."""
