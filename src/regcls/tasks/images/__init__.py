"""Images, each with one number to predict (section 3.2)."""
