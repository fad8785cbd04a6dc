"""One video: from its file to the frames of a clip."""
