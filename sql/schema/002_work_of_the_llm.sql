-- What the LLM of a stage did; null in results of before.
ALTER TABLE efficiency ADD COLUMN numbers_repaired BIGINT;
ALTER TABLE efficiency ADD COLUMN forward_passes BIGINT;
ALTER TABLE efficiency ADD COLUMN flops BIGINT;
ALTER TABLE efficiency ADD COLUMN load_seconds DOUBLE;
ALTER TABLE efficiency ADD COLUMN tokenise_seconds DOUBLE;
ALTER TABLE efficiency ADD COLUMN prefill_seconds DOUBLE;
ALTER TABLE efficiency ADD COLUMN decode_seconds DOUBLE;
