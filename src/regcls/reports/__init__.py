"""Reports: from tracked runs to tables, figures and pages, one report per data set and a start page."""
