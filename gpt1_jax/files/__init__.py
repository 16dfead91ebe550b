"""What stands in files that people have: packed or not, text and its encoding, rows."""
