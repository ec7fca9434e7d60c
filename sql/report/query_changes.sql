-- What each query gained or lost of nDCG@10 against another result, by the judgements of this one
-- ($rescored: what the other one's $queries get by these, where they are not its own); how far its
-- ranking moved, in a night and its baseline; and the relevant passage that left its first ten with
-- $fall or more of its nDCG@10, if one did: such queries first, then those that lost most.
WITH grades AS (
    SELECT
        query_id,
        passage_id,
        relevance,
        row_number() OVER (PARTITION BY query_id ORDER BY relevance DESC, passage_id) AS place
    FROM judgements
    INNER JOIN runs USING (collection, snapshot)
    WHERE
        series = $series AND run_date = $run_date AND collection = $collection
        AND arm_hash = $arm_hash AND relevance > 0
),
ideal AS (
    SELECT query_id, sum(relevance / log2(place + 1)) AS gain
    FROM grades
    WHERE place <= 10
    GROUP BY query_id
),
now AS (
    FROM rankings
    WHERE
        series = $series AND run_date = $run_date AND collection = $collection
        AND arm_hash = $arm_hash
),
fallen AS (
    SELECT
        before.query_id,
        before.passage_id,
        grades.relevance,
        before.rank AS against_rank,
        now.rank,
        grades.relevance / log2(before.rank + 1) / ideal.gain AS share
    FROM rankings AS before
    INNER JOIN grades USING (query_id, passage_id)
    INNER JOIN ideal USING (query_id)
    LEFT JOIN now USING (query_id, passage_id)
    WHERE
        before.series = $series AND before.run_date = $against_date
        AND before.collection = $collection AND before.arm_hash = $against_arm_hash
        AND before.rank <= 10 AND coalesce(now.rank, 11) > 10 AND share >= $fall
    QUALIFY row_number() OVER (PARTITION BY before.query_id ORDER BY share DESC, before.rank) = 1
),
theirs AS (
    SELECT query_id, coalesce(again.value, own.value) AS value
    FROM (
        SELECT query_id, value FROM query_measures
        WHERE
            series = $series AND run_date = $against_date AND collection = $collection
            AND arm_hash = $against_arm_hash AND measure = 'nDCG@10'
    ) AS own
    FULL JOIN (
        SELECT unnest($queries::VARCHAR[]) AS query_id, unnest($rescored::DOUBLE[]) AS value
    ) AS again USING (query_id)
)
SELECT
    mine.query_id,
    queries.text,
    queries.tags,
    theirs.value AS against_value,
    mine.value,
    mine.value - theirs.value AS delta,
    drift.overlap_10,
    drift.largest_move,
    drift.largest_move_passage,
    fallen.* EXCLUDE (query_id)
FROM query_measures AS mine
INNER JOIN theirs USING (query_id)
INNER JOIN runs
    ON runs.series = mine.series AND runs.run_date = mine.run_date
    AND runs.collection = mine.collection AND runs.arm_hash = mine.arm_hash
LEFT JOIN queries
    ON queries.collection = runs.collection AND queries.snapshot = runs.snapshot
    AND queries.query_id = mine.query_id
LEFT JOIN drift
    ON drift.series = mine.series AND drift.run_date = mine.run_date
    AND drift.collection = mine.collection AND drift.arm_hash = mine.arm_hash
    AND drift.against_date = $against_date AND drift.against_arm_hash = $against_arm_hash
    AND drift.query_id = mine.query_id
LEFT JOIN fallen ON fallen.query_id = mine.query_id
WHERE
    mine.series = $series AND mine.run_date = $run_date AND mine.collection = $collection
    AND mine.arm = $arm AND mine.arm_hash = $arm_hash AND mine.measure = 'nDCG@10'
ORDER BY fallen.share DESC NULLS LAST, delta, drift.overlap_10, mine.query_id;
