-- Every arm ranks exactly the passages that its first stage found, down to the arm's depth.
WITH arms AS (
    SELECT arm, arm_hash
    FROM runs
),
wanted AS (
    SELECT arms.arm, arms.arm_hash, candidates.query_id, candidates.passage_id
    FROM arms
    INNER JOIN candidates USING (arm_hash)
)
SELECT format('{}: the ranking of query {} is not a permutation of its candidates: {} are missing '
    'and {} do not belong there',
    coalesce(wanted.arm, rankings.arm),
    coalesce(wanted.query_id, rankings.query_id),
    count(*) FILTER (rankings.passage_id IS NULL),
    count(*) FILTER (wanted.passage_id IS NULL)) AS problem
FROM wanted
FULL JOIN rankings
    ON rankings.arm_hash = wanted.arm_hash AND rankings.query_id = wanted.query_id
    AND rankings.passage_id = wanted.passage_id
WHERE rankings.passage_id IS NULL OR wanted.passage_id IS NULL
GROUP BY coalesce(wanted.arm, rankings.arm), coalesce(wanted.query_id, rankings.query_id);
