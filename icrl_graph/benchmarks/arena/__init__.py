"""Optimisers of other libraries as topologies, so that they can be compared with the shipped ones: the arena.

Each is a program of its library, run by `icrl_graph.topologies.programs` under the same caps, rate limit, journal and
evaluator as every other method, and named by an entry point: dspy_refine, dspy_best_of_n, gepa, langgraph_reflection,
deepagents_rubric. The extra `arena` brings their packages.
"""
