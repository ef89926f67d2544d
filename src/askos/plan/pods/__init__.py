"""What a pod does next, and what is said about it: plain functions over what is wanted and what is seen."""
