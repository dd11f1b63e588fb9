"""What the command line calls: configurations, run directories, training and evaluation."""
