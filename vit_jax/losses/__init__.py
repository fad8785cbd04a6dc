"""Pure functions of arrays that optax.losses has not: what is minimised, and what is counted."""
