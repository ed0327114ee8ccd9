"""Abstracts from titles."""
