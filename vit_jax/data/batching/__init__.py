"""From examples to batches: their order, their rows, and who makes them ahead of use."""
