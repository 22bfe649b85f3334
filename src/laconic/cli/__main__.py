"""`python -m laconic.cli`."""

from laconic.cli import main

main()
