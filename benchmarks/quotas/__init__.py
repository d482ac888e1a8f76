"""How sends adapt to a quota that the provider does not publish."""
