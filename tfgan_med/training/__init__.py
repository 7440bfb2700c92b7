"""Model, data and run folder brought together."""
