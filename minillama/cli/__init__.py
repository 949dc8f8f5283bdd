"""The command line: a file for each command, and its row in `commands`."""
