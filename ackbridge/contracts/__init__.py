"""The wire: models, names and search attributes that any Temporal SDK can use."""
