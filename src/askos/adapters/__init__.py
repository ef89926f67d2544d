"""One folder per outside thing. An adapter translates at the border and leaks no foreign type."""
