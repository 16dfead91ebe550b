"""What the machine makes of a run: how fast it is, and whether it fits."""
