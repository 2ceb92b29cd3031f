"""`make demo`: a running VM moves between two simulated clouds, through the real deployments."""
