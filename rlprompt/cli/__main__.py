"""`python -m rlprompt.cli`."""

from rlprompt.cli import main

main()
