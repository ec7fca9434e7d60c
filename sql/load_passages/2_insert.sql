-- Insert passages of a snapshot; incoming_passages is a batch of its rows.
INSERT INTO passages BY NAME
SELECT *, $collection AS collection, $snapshot AS snapshot FROM incoming_passages;
