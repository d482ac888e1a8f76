"""An outage of hours, with thousands of real calls parked, drained and confirmed."""
