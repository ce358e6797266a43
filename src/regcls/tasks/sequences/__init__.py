"""Progress of videos from features of their frames (section 3.3)."""
