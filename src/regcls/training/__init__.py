"""Training: many small networks at once (ensemble.py), and the study that plans and tracks them."""
