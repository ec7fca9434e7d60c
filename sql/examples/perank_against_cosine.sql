-- On which queries does PE-Rank lose most against plain cosine? The newest night.
SELECT perank.collection, perank.query_id,
       round(cosine.value, 4) AS cosine, round(perank.value, 4) AS perank,
       round(perank.value - cosine.value, 4) AS difference
FROM latest_runs AS newest
INNER JOIN query_measures AS perank USING (series, run_date, collection, arm_hash)
INNER JOIN query_measures AS cosine
    ON cosine.series = perank.series AND cosine.run_date = perank.run_date
    AND cosine.collection = perank.collection
    AND cosine.query_id = perank.query_id AND cosine.measure = perank.measure
WHERE perank.arm = 'perank' AND cosine.arm = 'cosine' AND perank.measure = 'nDCG@10'
ORDER BY difference
LIMIT 10;
