"""Systems that turn media into tokens and tokens into media."""
