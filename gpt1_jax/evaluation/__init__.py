"""Measures of a network with parameters in place."""
