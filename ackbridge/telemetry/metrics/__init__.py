"""Metrics, exported by OTLP and on a page for Prometheus."""
