"""Learned deadlines against providers that an oracle knows."""
