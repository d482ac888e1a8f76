"""Integration files: schema, loading, what goes out, and matching what comes in."""
