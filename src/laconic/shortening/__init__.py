"""Text that is shortened before a model reads it: what methods of the site `prompt` share, and how a session is charged."""
