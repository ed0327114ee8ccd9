"""Shipped tasks with exact answers: their rules, texts and verifiers."""
