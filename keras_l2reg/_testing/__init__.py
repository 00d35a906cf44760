"""The implementation of `keras_l2reg.testing`: the checks, and the cases to check."""
