"""What every command of this folder writes to a terminal alike."""
