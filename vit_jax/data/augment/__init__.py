"""Random augmentation of examples: geometry and colour, each draw from the generator passed in."""
