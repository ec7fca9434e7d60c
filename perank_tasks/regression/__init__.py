"""Is tonight worse than what was accepted? The judgement behind a night's one word.

    thresholds   every number that decides a verdict, with its reason
    statistics   paired randomisation test, Holm's correction, noise band, trend, intervals
    drift        two rankings of one query: overlap, rank-biased overlap, tau, moves, scores
    ladder       identical … regression, for every arm and measure of one night
    cost         slower or costlier than usual, apart from quality
    derive       all of these for the nights of a warehouse, as rows of derived tables
    attribution  what was different between two runs, in words
    simulation   how often the ladder cries wolf, and how small a drop it sees

Everything but `derive` is a pure function of arrays.
"""
