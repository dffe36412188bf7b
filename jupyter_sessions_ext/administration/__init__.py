"""What administrators ask for, whether over REST or on the command line."""
