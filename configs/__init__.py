"""Settings that travel with the package, one YAML file each."""
