"""Many runs: the paper in miniature, and its tables and figures."""
