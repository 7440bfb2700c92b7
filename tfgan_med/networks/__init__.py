"""Networks used by more than one system."""
