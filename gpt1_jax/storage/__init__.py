"""Folders of object stores, worked on as folders of this machine."""
