"""What other libraries mount: each module is for one of them, and needs it; only commands import them.

One rule for all: of the caller's limits and the owner's the lower ones hold, the best answer is returned with its
reward and why the run ended, what is unscored is never 0, and what an integration ignores it says.

`kept_runs` is for servers among them: what a client that goes, or asks again, costs.
"""
