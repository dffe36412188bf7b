"""The page at ``/sessions``: what administrators see and steer in a browser."""
