"""A number for each row of a table, from its other columns."""
