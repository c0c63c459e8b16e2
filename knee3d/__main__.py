"""`python -m knee3d` is the command `knee3d`."""

from knee3d.cli import main

if __name__ == "__main__":
    main(prog_name="knee3d")
