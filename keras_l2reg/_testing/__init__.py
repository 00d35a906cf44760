"""What `keras_l2reg.testing` stands on: the cases, the checks, and what they expect."""
