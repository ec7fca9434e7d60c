-- nDCG@10 of every arm over the nights, with the step from the night before.
SELECT run_date, collection, arm, round(value, 4) AS ndcg_10, round(delta, 4) AS delta
FROM means_by_date
WHERE measure = 'nDCG@10'
ORDER BY collection, arm, run_date;
