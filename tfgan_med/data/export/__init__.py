"""Data sets in the layouts of other tools: one file per format."""
