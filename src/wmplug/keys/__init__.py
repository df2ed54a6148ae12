"""Secrets: how wmplug seals them, derives keys from them, and commits to them."""
