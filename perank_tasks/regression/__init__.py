"""Is tonight worse than what was accepted? The judgement behind a night's one word.

    thresholds   every number that decides a verdict, with its reason
    statistics   paired randomisation test, Holm's correction, noise band, trend, intervals
    paired       two arms over the same queries, or a family of such pairs: means, interval, test
    measures     nDCG@10, MRR@10 and the others, of rankings and judgements
    drift        two rankings of one query: overlap, rank-biased overlap, tau, moves, scores
    symptoms     signs that a ranker did nothing
    ladder       identical … regression, for every arm and measure of one night
    slices       in which part of the queries a change sits
    cost         slower or costlier than usual, apart from quality
    gate         the exit status of some verdicts
    simulation   how often the ladder cries wolf, and how small a drop it sees
    warm_up      the measures compiled, at installation

Nothing here reads a table or a file; `warehouse.derive` calls it for a warehouse's nights.
"""
