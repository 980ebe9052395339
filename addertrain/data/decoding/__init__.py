"""Decodes image files to RGB; every reader here gets its pixels from `picture`."""
