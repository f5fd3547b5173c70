"""Child processes: ended with their parent, and of low CPU priority where they would run on other machines."""
