"""`python -m heddle` is the `heddle` command."""

from heddle.cli.main import main

main()
