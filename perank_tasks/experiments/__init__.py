"""Experiments: a question put to the pipeline as a grid of arms, and its answer.

    options    a TOML file            -> the experiment and its grid
    plan       an experiment          -> its cells, each a night of one arm
    dry_run    a plan                 -> windows and tokens
    cells      a cell                 -> rankings
    results    all cells              -> rows of the nights' tables, and tests against the baseline
    lengths    rankings               -> measures over passages of a length
    answer     tables                 -> the answer in plain words
    figures    an answer              -> plots
    page       tables                 -> a page of results with the answer
    pipeline   a plan                 -> all of it in one process

`prepared/` holds the experiments that come with the package.
"""
