"""What is done with a model that has learned to write: tasks and functions, a file each."""
