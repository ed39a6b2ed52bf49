"""What operators ask for: plan and apply, run, tail, lag."""
