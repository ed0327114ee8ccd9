"""Benchmarks, arms, comparisons and reports."""
