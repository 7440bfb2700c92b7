"""Functions on tensors, no weights."""
