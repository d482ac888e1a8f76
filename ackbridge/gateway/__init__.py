"""The HTTP edge: receives the callbacks of providers."""
