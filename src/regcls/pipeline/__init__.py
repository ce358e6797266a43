"""The commands of `dvc repro` and the command line. Only here are paths, params and tracking combined."""
