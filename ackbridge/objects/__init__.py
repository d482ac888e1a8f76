"""Large payloads and bodies in an object store."""
