"""Parts of the model written for one kind of device, and the bits of dropout that all share."""
