"""The sub-commands of `fairlane` that belong to the service."""
