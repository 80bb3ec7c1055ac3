"""rlprompt finds better prompts for a frozen language model."""
