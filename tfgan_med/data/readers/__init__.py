"""Folder layouts, one reader per file."""
