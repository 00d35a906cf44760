"""audit: detect common mistakes in a model's weight regularization.

`audit` is the function and what it returns, `rules` the table of what it looks for,
`subject` what is known of a model; `duplicates`, `experiment` and `scale_invariance`
hold the findings that take more than a look.
"""
