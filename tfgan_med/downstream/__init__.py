"""Models that show whether synthetic pictures help: classifiers and segmenters, one per file."""
