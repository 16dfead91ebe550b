"""Tokens and tasks to batches."""
