"""A Space where visitors try a classifier: what it predicts, where it looks, and what changes its mind."""
