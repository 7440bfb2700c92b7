"""One measure of images per file."""
