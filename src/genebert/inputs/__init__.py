"""Readers of the files that users have. They check, and name file, line, value and remedy."""
