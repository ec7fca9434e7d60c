"""Is tonight worse than what was accepted? The judgement behind a night's one word.

    thresholds   every number that decides a verdict, with its reason
    statistics   paired randomisation test, Holm's correction, noise band, trend, intervals
    paired       two arms over the same queries, or a family of such pairs: means, interval, test
    measures     nDCG@10, MRR@10 and the others, of rankings and judgements
    drift        two rankings of one query: overlap, rank-biased overlap, tau, moves, scores
    ladder       identical … regression, for every arm and measure of one night
    cost         slower or costlier than usual, apart from quality
    simulation   how often the ladder cries wolf, and how small a drop it sees

Everything here is a pure function of arrays; `warehouse.derive` calls it for a warehouse's nights.
"""
