"""The command line, importable as `tfgan_med.cli`."""
