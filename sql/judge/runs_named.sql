-- The results that a name means, by what they share; of one collection where it is given.
SELECT series, run_date, collection, list(arm_hash) AS arm_hashes
FROM runs_named($run)
WHERE collection = coalesce($collection, collection)
GROUP BY ALL
ORDER BY ALL;
