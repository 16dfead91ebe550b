"""Documents to token shards."""
