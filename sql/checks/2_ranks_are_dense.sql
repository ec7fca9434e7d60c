-- Each query's ranks are 1, 2, 3 … without a gap, and scores do not rise with them.
SELECT format('{}: query {} has {} passages and ranks {} to {}',
    arm, query_id, count(*), min(rank), max(rank)) AS problem
FROM rankings
GROUP BY arm, arm_hash, query_id
HAVING min(rank) <> 1 OR max(rank) <> count(*) OR count(DISTINCT rank) <> count(*)
UNION ALL
SELECT format('{}: query {} has score {} at rank {}, which is more than the rank before',
    arm, query_id, score, rank)
FROM rankings
QUALIFY score > lag(score) OVER (PARTITION BY arm_hash, query_id ORDER BY rank)
UNION ALL
SELECT format('{}: query {} has score {} at rank {}', arm, query_id, score, rank)
FROM rankings
WHERE NOT isfinite(score);
