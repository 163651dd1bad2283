"""Public weights in, our weights out."""
