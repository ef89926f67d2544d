"""Docker Hub's search, and that of registries that speak as it does."""
