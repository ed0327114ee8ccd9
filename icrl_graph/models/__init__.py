"""Models by name, functions as models, and what a policy is."""
