"""Images with one target each (section 3.2)."""
