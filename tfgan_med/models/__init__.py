"""One generative system per file."""
