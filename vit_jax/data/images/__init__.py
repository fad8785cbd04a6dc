"""One image: from a file's bytes to uint8 pixels of the size that a model takes."""
