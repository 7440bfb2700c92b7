"""Files on disk to batches of tensors."""
