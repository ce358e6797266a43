"""The stages: what `dvc repro` and the command line start. Paths, params and tracking meet here, and nowhere below."""
