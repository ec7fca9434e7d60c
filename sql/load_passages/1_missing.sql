-- The passages of a snapshot that incoming results rank or judge and the table does not have. A judged
-- one may be missing from the collection for good: only one that is ranked makes it worth reading the
-- snapshot.
SELECT passage_id, bool_or(is_ranked) AS is_ranked
FROM (
    SELECT passage_id, TRUE AS is_ranked FROM incoming_rankings
    UNION ALL
    SELECT passage_id, FALSE AS is_ranked FROM incoming_judgements
)
ANTI JOIN (FROM passages WHERE collection = $collection AND snapshot = $snapshot)
    USING (passage_id)
GROUP BY passage_id;
