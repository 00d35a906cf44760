"""The checks behind `keras_l2reg.testing`, and the cases that they run on."""
