"""The data sets: one file each, raw -> prepared."""
