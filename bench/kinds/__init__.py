"""`fairlane bench kinds`: every kind of request that Triton serves, directly and through Fairlane, in one run."""
