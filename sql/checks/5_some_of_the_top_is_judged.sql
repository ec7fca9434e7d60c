-- Where no arm has a single judged passage in any first ten, the judgements belong to another
-- collection, or the passages have other ids than they had.
SELECT format('judged@10 is 0 for {} although {} queries are judged: do the judgements name this '
    'collection''s passages?', string_agg(DISTINCT measures.arm, ', ' ORDER BY measures.arm), max(measures.queries))
    AS problem
FROM measures
WHERE measure = 'judged@10' AND EXISTS (FROM rankings)
HAVING max(value) = 0;
