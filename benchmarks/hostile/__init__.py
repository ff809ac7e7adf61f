"""`make hostile`: what others notice while one user or one address floods a node as shipped.

__main__    the run: start a node, attack by attack, print the table
town        the node and its accounts
probes      well-behaved users: publishes, calls and logins at a steady pace, timed
attacks     the floods, in a process of their own
verdicts    from samples to the rows of the table
"""
