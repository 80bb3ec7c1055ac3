"""What policies that learn are made of: networks, rollouts, and what trains them."""
