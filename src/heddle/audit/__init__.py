"""The chained record of what was done: by batches and by operators."""
