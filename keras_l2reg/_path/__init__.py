"""l2_path: one model, many strengths, one trace.

`l2_path` is the function, `arguments` its checks, `grid` the default strengths, `runs`
the fits in this process, `executor` those in others, `result` what they measured.
"""
