"""Training data: from collections, queries and a teacher to sequences of examples (`make`)."""
