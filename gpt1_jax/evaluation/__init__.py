"""Checkpoints to numbers and text."""
