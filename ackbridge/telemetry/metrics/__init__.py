"""Metrics: what is counted and known anyway, told by OTLP and to Prometheus."""
