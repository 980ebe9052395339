"""Builds a report from finished runs: an HTML page with tables and figures, and the same numbers as JSON."""
