"""A batch of very many parked calls on the embedded engine: its memory, its history, its time."""
