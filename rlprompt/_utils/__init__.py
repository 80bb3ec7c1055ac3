"""What has no concept of ours: assets, files, plugins, seeding, suggestions, safe text."""
