"""What finds out how fast this machine is: shapes of models, traffic, tuning, benchmark."""
