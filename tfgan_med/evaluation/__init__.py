"""Measures sets of pictures: folders, networks and metrics together."""
