"""How long a breaker keeps healthy calls back, in simulations over hours."""
