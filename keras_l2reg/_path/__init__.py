"""l2_path: fit one model at many strengths, compiled once.

=============  ====================================================================
`l2_path`      the function
`arguments`    checks its arguments
`folds`        splits the data for cross-validation
`points`       the strengths, and the shares of L1 in them
`grid`         derives the default strengths from the data
`starts`       the weights that the runs start from
`runs`         fits the model in this process
`executor`     fits copies of the model in the workers of an executor
`collect`      gathers the runs into an `L2Path`, and keeps the best weights
`refit`        fits to all data after a cross-validation
`records`      means and standard errors of the runs
`result`       `L2Path`, the result
`plot`         plots it
=============  ====================================================================
"""
