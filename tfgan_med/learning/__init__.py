"""Optimizer steps and the state of whatever is trained."""
