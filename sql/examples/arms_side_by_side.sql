-- How well does each arm rank, and what does it cost? The newest night of every collection.
SELECT collection, arm, round(ndcg_10, 4) AS ndcg_10, round(mrr_10, 4) AS mrr_10,
       round(queries_per_second, 2) AS queries_per_second, status
FROM latest_runs;
