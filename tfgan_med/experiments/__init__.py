"""The experiment: arms, repeats, guards, statistics and the report."""
