"""`python -m wmplug` is `wmplug`."""

from wmplug.cli import main

if __name__ == "__main__":
    main()
