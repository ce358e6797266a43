"""Raw files, however they come, and prepared data sets, however they are read."""
