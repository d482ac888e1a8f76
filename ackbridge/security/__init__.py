"""Verification of callbacks, authentication of requests, secrets and their redaction."""
