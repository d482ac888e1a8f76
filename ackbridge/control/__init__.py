"""Provider control: what is decided about a provider, and what a call may do. No I/O."""
