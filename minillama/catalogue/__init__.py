"""The models by name, what they cost, what is stated of them, and the table of both."""
