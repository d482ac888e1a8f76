"""Generates messages of a provider from the expressions that read them."""
