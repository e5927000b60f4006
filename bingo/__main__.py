"""Run the command line as ``python -m bingo``."""

from bingo.cli import main

main()
