"""Training on a Ray cluster (`compute.engine: ray`).

The main process keeps the store, the checkpoints and the locks. Its `connection` starts a process of its own for Ray, the `bridge`, since
Ray ends a process that loses the cluster's head. The bridge keeps a `node.Worker` at each place. What travels is pickled by `travel`:
a checkpoint goes along with its path, and prepared data are read from a shared disk or pulled from the DVC remote (`copies`).
"""
