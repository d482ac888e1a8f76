"""Very many calls that wait for their response: memory, throughput of new calls, and a restart."""
