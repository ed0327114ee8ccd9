"""Games with a known answer: their rules, their tasks, and policies to compare with."""
