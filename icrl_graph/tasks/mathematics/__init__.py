"""Competition mathematics: answers read out of responses, compared exactly; problems of this package's own."""
