"""Provider control: what a worker knows of it, and what a call may do by it. No I/O of its own."""
