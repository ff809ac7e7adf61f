"""Administration: what an operator does to a node.

These operations stand in a table of their own (`bridge.administration`), so that users cannot call
them. Whoever offers that table decides who may call: the handlers do not look at the caller.
"""
