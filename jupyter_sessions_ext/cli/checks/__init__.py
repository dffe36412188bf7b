"""What ``jupyter sessions check`` looks at."""
