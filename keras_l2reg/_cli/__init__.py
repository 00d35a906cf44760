"""Helpers of `python -m keras_l2reg`: which files are models, and Keras' load errors.

They do not import Keras, so that errors about files are reported at once.
"""
