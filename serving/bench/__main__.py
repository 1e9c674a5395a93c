"""Entry point: python -m serving.bench. The client's processes import this file too: it imports nothing itself."""

if __name__ == "__main__":
    import sys

    from serving.bench.command import main

    sys.exit(main(sys.argv[1:]))
