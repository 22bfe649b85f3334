"""KVzap: see `method`, `network` for the surrogate that it reads scores from, and `fit` for how that is fitted."""

from laconic.methods.cache.kvzap.method import KVzap as KVzap
