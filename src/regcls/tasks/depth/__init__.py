"""Depth from one image (section 3.2)."""
