"""Authentication out, verification in, the secrets behind both, and keeping them from view."""
