-- What the newest run of every experiment found: each variant against its baseline.
SELECT series, collection, variant, round(value, 4) AS "nDCG@10", round(delta, 4) AS delta,
    p_holm, round(seconds_a_query, 3) AS seconds_a_query
FROM experiment_variants
WHERE measure = 'nDCG@10'
ORDER BY series, collection, value DESC;
