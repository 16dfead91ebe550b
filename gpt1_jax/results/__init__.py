"""Numbers to tables, figures and one page."""
