"""``python -m clearsight`` is ``clearsight``."""

from clearsight.cli.app import main

if __name__ == "__main__":
    main()
