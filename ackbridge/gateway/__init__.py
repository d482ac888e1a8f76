"""The HTTP edge: provider callbacks in."""
