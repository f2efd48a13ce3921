"""`python -m dsr.serve.process`: one engine process. Its parent speaks to it over stdin and stdout."""

from dsr.serve.process.main import main

if __name__ == "__main__":
    main()
