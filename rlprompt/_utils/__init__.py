"""Helpers that know nothing of prompts: assets, files, plugins, seeding, suggestions, safe text."""
