-- How far each query's ranking moved, on a date and later.
SELECT run_date, arm_hash, overlap_10, rbo, largest_move
FROM drift
WHERE collection = $collection AND run_date >= $since
ORDER BY query_id;
