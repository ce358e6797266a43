"""The controlled study of 1D functions (paper, sections 2 and 3.1)."""
