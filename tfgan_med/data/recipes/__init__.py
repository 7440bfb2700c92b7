"""Recipes that turn the original downloads of published studies into our layout, one per file."""
