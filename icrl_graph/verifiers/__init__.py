"""Verifiers: exact judges that need no model. They fail closed, and never evaluate what a model wrote."""
