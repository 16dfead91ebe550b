"""What a run finds around it: other processes, signals, the devices and what they have compiled."""
