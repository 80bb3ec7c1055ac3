"""What methods are made of, but for policies that learn, which have a folder of their own."""
