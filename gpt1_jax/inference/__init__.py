"""Using a model: text, scores, labels, and what is inside."""
