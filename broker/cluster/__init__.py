"""The node's side of a cluster: what it tells the other nodes, and does when they tell it something."""
