"""l2_path: fit one model at many strengths, compiled once.

`l2_path` is the function, `arguments` checks what it is given, `grid` finds the
default strengths, `starts` the weights that runs start from; `runs` fits in this
process, `executor` in others; `collect` gathers the runs into the `L2Path` of `result`,
which `plot` draws.
"""
