"""What the stages must know of each kind of data set, one module a kind; `registry` says which data set is of which."""
