"""Which method for this model: a contest of a few methods on questions that the model itself can answer."""
