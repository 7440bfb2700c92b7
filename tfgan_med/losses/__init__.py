"""Losses: logits or images in, float32 scalar out."""
