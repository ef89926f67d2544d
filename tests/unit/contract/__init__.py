"""What a real Zun 18 answered, replayed against the application."""
