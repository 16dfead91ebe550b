"""Parameters on disk, whatever the layout."""
