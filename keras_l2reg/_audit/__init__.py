"""audit: detect common mistakes in a model's weight regularization.

===================  ============================================================
`audit`              the function
`findings`           what it returns
`rules`              the table of what it looks for
`facts`              what the rules need to know about a model
`consistency`        rules: layer, weight, compiled step and saved config disagree
`coverage`           rules: which weights have a penalty
`decay`              rules: the optimizer's weight decay
`magnitude`          rules: penalties that are too large
`duplicates`         rules: penalties that are counted more than once
`scale_invariance`   the rule about kernels that a normalization follows
`experiment`         how the loss terms respond to changes of the weights
===================  ============================================================
"""
