"""Tracked runs -> tables, figures and one page. `compare` is the way in."""

from regcls.reports.report import compare

__all__ = ["compare"]
