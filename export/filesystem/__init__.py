"""Folders that appear whole or not at all, and the lock of a folder whose entries one process changes at a time.

The kernel lets go of a lock when its process ends, however it ends.
The build folder, the model repository and `fairlane tune` call it.
"""
