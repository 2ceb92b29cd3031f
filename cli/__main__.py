"""`python -m snapferry.cli`"""

from snapferry.cli.app import main

main()
