"""What our processes tell about themselves: logs, and traces."""
