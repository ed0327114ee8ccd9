"""Word games: guess a secret in English from nothing but the rewards of the earlier guesses.

A game is made of a family (what is secret, and what an answer earns), of words and of a wording; words and wordings are
split into those for training and those held out, so that it can be told how far a player that was trained generalises.
One answer tells little, so a player that gets better over the rounds must have read the rewards of the earlier ones.

`vocabularies` and `wordings` hold the texts, `families` the games, `instances` makes one from a number, `answers` has
the evaluator, `references` players that are functions.
"""
