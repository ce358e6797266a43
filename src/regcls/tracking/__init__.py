"""Runs in MLflow: the only modules that import it, next to mlproject.py. Everything else goes through tracker.Tracker."""
