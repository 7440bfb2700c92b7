"""Keras layers shared by networks."""
