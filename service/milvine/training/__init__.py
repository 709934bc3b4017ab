"""Training: interactions in, a measured model out."""
