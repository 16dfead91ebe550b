"""What a run is made of before it starts: the config, the update rule, where arrays lie."""
