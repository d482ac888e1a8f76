"""Making up what a provider would say, from the expressions that read it."""
