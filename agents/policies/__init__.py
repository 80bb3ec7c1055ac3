"""What policies that learn are made of: networks, and what trains them."""
