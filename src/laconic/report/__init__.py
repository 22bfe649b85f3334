"""HTML pages: self-contained, no external resources, dark and light."""
