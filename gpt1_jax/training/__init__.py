"""Making a model: from a config to a workdir."""
