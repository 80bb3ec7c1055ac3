"""A model behind a server: how it is reached, what it can do, and what its answers cost."""
