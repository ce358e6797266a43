"""Tracked runs -> tables, figures and pages: one report a data set, and an overview of them."""
